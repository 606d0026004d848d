"""The one door to Triton.

    launch      start and stop a tritonserver over the model repository (knows no model)
    settings    a model's parameters and the environment, as one frozen value
    tensors     Triton requests ⇄ numpy arrays
    failures    exceptions → gRPC codes and one sentence
    report      the JSON that travels with a request and says what was done
    metrics     custom metrics, behind one lock
    adapter     `StageModel`, the base of every synchronous model.py
    stages/     what each stage does, as callables that never see a Triton object

Only `tensors`, `failures`, `metrics`, `adapter`, `bls` and `deferred` import
`triton_python_backend_utils`; it exists inside Triton's Python stub alone.
"""
