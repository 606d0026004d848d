"""Where the published networks lie: repositories on the hub and directories below a checkpoint folder."""

from dataclasses import dataclass
from pathlib import PurePath

TEXT_GUARD = "Qwen/Qwen3Guard-Gen-0.6B"  # what cosmos-guardrail judges prompts with
VIDEO_GUARD = "google/siglip-so400m-patch14-384"  # the eyes of its content filter
ARCHIVES = ("encoder.jit", "decoder.jit", "autoencoder.jit")
WEIGHTS = "model.pt"
COMPONENTS = (
    "autoregressive",
    "tokenizers",
    "diffusion-decoder",
    "text-encoder",
)  # what has weights of its own
OPTIONAL = ("diffusion-decoder", "text-encoder", "guardrail")  # what some ensembles or profiles do without
MODELS = ("4B", "5B", "12B", "13B")
SIZES = ("tiny", *MODELS)  # of random folders
MEAN_STD = "mean_std.pt"
AUX_VARS = "aux_vars.pt"


@dataclass(frozen=True)
class Release:
    """One of NVIDIA's two releases of the same architectures; a directory is named as its repository."""

    name: str
    prefixes: tuple[str, ...]  # with which the names of its directories begin
    autoregressive: str  # template over the model's published name, e.g. `5B-Video2World`
    discrete_tokenizer: str
    continuous_tokenizer: str
    diffusion_decoder: str
    guardrail: str
    text_encoder: str = "google-t5/t5-11b"
    owner: str = "nvidia"

    def autoregressive_directory(self, model: str) -> str:
        """Directory of the preset `model`: `5B` → `Cosmos-Predict1-5B-Video2World`."""
        return self.autoregressive.format(PUBLISHED_NAMES[model])

    def repository(self, directory: str) -> str:
        """The hub's name of what lies in `directory`."""
        return directory if "/" in directory else f"{self.owner}/{directory}"


PUBLISHED_NAMES = {
    "4B": "4B",
    "5B": "5B-Video2World",
    "12B": "12B",
    "13B": "13B-Video2World",
    "tiny": "tiny",
    "tiny-video2world": "tiny-Video2World",
    "small": "small",
    "small-video2world": "small-Video2World",
}

PREDICT1 = Release(
    name="predict1",
    prefixes=("Cosmos-Predict1-", "Cosmos-Tokenize1-"),
    autoregressive="Cosmos-Predict1-{}",
    discrete_tokenizer="Cosmos-Tokenize1-DV8x16x16-720p",
    continuous_tokenizer="Cosmos-Tokenize1-CV8x8x8-720p",
    diffusion_decoder="Cosmos-Predict1-7B-Decoder-DV8x16x16ToCV8x8x8-720p",
    guardrail="Cosmos-Guardrail1",
)
COSMOS1 = Release(
    name="1.0",
    prefixes=("Cosmos-1.0-",),
    autoregressive="Cosmos-1.0-Autoregressive-{}",
    discrete_tokenizer="Cosmos-1.0-Tokenizer-DV8x16x16",
    continuous_tokenizer="Cosmos-1.0-Tokenizer-CV8x8x8",
    diffusion_decoder="Cosmos-1.0-Diffusion-7B-Decoder-DV8x16x16ToCV8x8x8",
    guardrail="Cosmos-1.0-Guardrail",
)
RELEASES = {release.name: release for release in (PREDICT1, COSMOS1)}


def release_of(directory: PurePath) -> Release | None:
    """The release whose naming a directory, or one above it, follows; the hub's cache is understood too."""
    names = [part.rpartition("--")[2] for part in reversed(directory.parts)]
    for name in names:
        for release in RELEASES.values():
            if name.startswith(release.prefixes):
                return release
    return None
