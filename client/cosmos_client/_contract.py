"""The names this client shares with the server: public ensembles and their tensors.

`model_repository/*/config.pbtxt` is the contract of record; a test holds these names against it.
"""

from cosmos_client._errors import UsageError

BASE = "cosmos_base"
VIDEO2WORLD = "cosmos_video2world"
FAST_SUFFIX = "_fast"  # the ensemble without the diffusion decoder
ENSEMBLES = (BASE, BASE + FAST_SUFFIX, VIDEO2WORLD, VIDEO2WORLD + FAST_SUFFIX)
TAKE_NO_PROMPT = (BASE, BASE + FAST_SUFFIX)
STAGES = (  # in the server's repository too, but no request for a world goes to one
    "ar_sampler",
    "diffusion_decoder",
    "diffusion_denoiser",
    "latent_decoder",
    "media_decoder",
    "media_encoder",
    "prompt_guardrail",
    "text_encoder",
    "text_tokenizer",
    "video_decoder",
    "video_encoder",
    "video_guardrail",
)

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
    """The ensemble that serves a request: the one named, else the one that its prompt asks for.

    A name that is not known here is left to the server, which may have more ensembles.

    Raises:
        UsageError: the name is empty or a stage's, or the ensemble takes no prompt and there is one.
    """
    if model == "":
        raise UsageError("the model's name is empty: leave it out for the default")
    if model in STAGES:
        raise UsageError(
            f"model {model} is a stage and makes no worlds by itself: use {', '.join(ENSEMBLES)}"
        )
    if model in TAKE_NO_PROMPT and prompt is not None:
        raise UsageError(f"model {model} takes no prompt: leave it out, or use {VIDEO2WORLD}")
    name = (BASE if prompt is None else VIDEO2WORLD) if model is None else model
    if disable_diffusion_decoder and not name.endswith(FAST_SUFFIX):
        return name + FAST_SUFFIX
    return name
