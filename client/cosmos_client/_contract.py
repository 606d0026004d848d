"""The names this client shares with the server: public ensembles and their tensors.

`model_repository/*/config.pbtxt` is the contract of record; a test holds these names against it.
"""

BASE = "cosmos_base"
VIDEO2WORLD = "cosmos_video2world"
FAST_SUFFIX = "_fast"  # the ensemble without the diffusion decoder
ENSEMBLES = (BASE, BASE + FAST_SUFFIX, VIDEO2WORLD, VIDEO2WORLD + FAST_SUFFIX)

INPUTS = {
    "media": "BYTES",
    "prompt": "BYTES",
    "num_input_frames": "INT32",
    "seed": "INT64",
    "temperature": "FP32",
    "top_p": "FP32",
}
OUTPUTS = {"video": "BYTES", "tokens": "INT32", "report": "BYTES"}
FRAMES_OUTPUT = {"frames": "UINT8"}  # 65 MB: asked for by name only

# Triton passes no cancellation into an ensemble, so the engine takes it from the side.
CANCEL_MODEL = "ar_sampler"
CANCEL_INPUT = "cancel_id"


def choose_model(model: str | None, prompt: str | None, *, disable_diffusion_decoder: bool = False) -> str:
    """The ensemble that serves a request: the one named, else the one that its prompt asks for."""
    name = model or (BASE if prompt is None else VIDEO2WORLD)
    if disable_diffusion_decoder and not name.endswith(FAST_SUFFIX):
        return name + FAST_SUFFIX
    return name
