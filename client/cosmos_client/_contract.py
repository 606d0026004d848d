"""What this client shares with the server: public ensembles, their tensors, sentences of fixed form.

`model_repository/*/config.pbtxt` and the server's errors are the contract of record; a test holds
these names and sentences against them.
"""

import re

from cosmos_client._options import OPTIONS

BASE = "cosmos_base"
VIDEO2WORLD = "cosmos_video2world"
FAST_SUFFIX = "_fast"  # the ensemble without the diffusion decoder
ENSEMBLES = (BASE, BASE + FAST_SUFFIX, VIDEO2WORLD, VIDEO2WORLD + FAST_SUFFIX)
TAKE_NO_PROMPT = (BASE, BASE + FAST_SUFFIX)

INPUTS = {"media": "BYTES"} | {name: option.datatype for name, option in OPTIONS.items()}
OUTPUTS = {"video": "BYTES", "tokens": "INT32", "report": "BYTES"}
FRAMES_OUTPUT = {"frames": "UINT8"}  # 65 MB: asked for by name only

# Triton passes no cancellation into an ensemble, so the engine takes it from the side.
CANCEL_MODEL = "ar_sampler"
CANCEL_INPUT = "cancel_id"

# What Triton puts in front of a stage's own sentence.
PREFIX = re.compile(r"^(in ensemble '[^']*', |\[request id: [^\]]*\] )+")

# A guardrail's refusal, which is INVALID_ARGUMENT like every other refusal.
BLOCKED = re.compile(r"blocked by (?P<stage>\w+) \((?P<category>[^)]*)\): (?P<reason>.*)", re.DOTALL)

# A passed deadline arrives as UNAVAILABLE, because Triton's Python backend has no code of its own for
# it: the engine's sentence, and Triton's for a request that waited too long for a stage.
DEADLINE_PASSED = re.compile(r"the request's limit of \S+ s passed|Request timeout expired")

# Refused before its generation began, so that asking again repeats no work. Triton's sentences count
# only without an ensemble's name in front: a later stage says the same when its turn comes.
QUEUE_FULL = re.compile(r"the queue of \d+ videos is full|the server is full|the server is draining")
NOT_ADMITTED = re.compile(
    r"(\[request id: [^\]]*\] )?"
    r"(Request for unknown model: .* has no available versions"
    r"|Request for unknown model: .* is not at ready state"
    r"|Exceeds maximum queue size"
    r"|Server not ready)"
)

# What only the operator of a server may ask: by this server's front, and by Triton itself.
OPERATORS_ONLY = re.compile(r"is for this server's operator|restricted")

# Said to requests that arrive and to those that were running alike.
STOPPING = re.compile(r"the server is stopping|Server is stopping", re.IGNORECASE)
