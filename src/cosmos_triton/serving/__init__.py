"""What runs inside Triton: requests come in here as tensors and leave as tensors or as one sentence.

    adapter      `StageModel`, the base of a model.py whose stage answers at once
    deferred     `DeferredModel`, the base of one whose stage answers later, and the one `Reply` to a request
    stages/      what each stage does, as callables that never see a Triton object
    parameters   what each stage can be told: names, types, defaults; imports no torch
    settings     what one instance is told at start: parameters, device, checkpoint folder
    residency    which stages leave the GPU between requests
    tensors      Triton's tensors ⇄ arrays
    values       single values inside arrays
    checks       shapes, ranges and NaN, before any work
    withdrawn    requests that were cancelled before they arrived
    report       the JSON that travels with a request and says what was done
    failures     exceptions → gRPC codes and one sentence
    bls          calls from one stage to another
    metrics      custom metrics, behind one lock
    observer     what the sampler's engine does → metrics
    logs         Python's logging → Triton's log

Only `tensors`, `failures`, `metrics`, `deferred`, `bls` and `logs` import `triton_python_backend_utils`: it
exists inside Triton's Python stub alone. What starts Triton is in `server/`.
"""
