"""diffusion_decoder: the sampling loop between the tokens and the continuous latents.

Parameter `denoiser`: `diffusion_denoiser` calls the model of that name for every step (its TensorRT
engine, or ONNX Runtime); `in-process` holds the network itself, on the GPU that the loop runs on.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.diffusion.sampler import DiffusionSettings, decode_tokens
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import integer

if TYPE_CHECKING:
    from cosmos_triton.serving.metrics import Metrics


class Sampler(Protocol):
    """Where the forward passes run."""

    settings: DiffusionSettings
    precision: str

    def __call__(self, tokens: torch.Tensor, text: Any, seed: int) -> Any:
        """[5, h, w] int32 on the host, [512, C] → normalised latents [16, 5, H/8, W/8]."""


class DiffusionDecoderStage:
    """One video's tokens become its latents."""

    def __init__(self, settings: StageSettings, metrics: "Metrics") -> None:
        denoiser = settings.text("denoiser", "diffusion_denoiser")
        if denoiser not in ("diffusion_denoiser", "in-process"):
            raise ConfigurationError(
                f"{settings.model}: denoiser={denoiser!r} is neither diffusion_denoiser nor in-process"
            )
        folder = CheckpointFolder(settings.checkpoint_dir)
        self._default_text = folder.default_text().float().numpy()  # [512, C]
        self._sampler: Sampler = (
            _Called() if denoiser == "diffusion_denoiser" else _in_process(settings, folder)
        )

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`tokens` INT32 [5,h,w] (+ text, seed) → `latents` FP32 [16,5,H/8,W/8], normalised."""
        text = inputs.get("text_embeddings", self._default_text)
        seed = integer(inputs, "seed") or 0
        tokens = torch.as_tensor(inputs["tokens"]).cpu()
        latents = self._sampler(tokens, text, seed)
        chosen = self._sampler.settings
        section = {
            "steps": chosen.steps,
            "guidance": chosen.guidance,
            "window": chosen.window,
            "precision": self._sampler.precision,
        }
        return StageResult({"latents": latents}, {"diffusion": section})

    def close(self) -> None:
        """Nothing to release."""


class _Called:
    """Every forward pass runs in the model `diffusion_denoiser`."""

    settings = DiffusionSettings()
    precision = "exact"

    def __init__(self) -> None:
        from cosmos_triton.serving.bls import call  # exists inside Triton only

        self._call = call

    def __call__(self, tokens: torch.Tensor, text: NDArray[Any], seed: int) -> NDArray[np.float32]:
        def step(latents: torch.Tensor, timestep: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
            predictions = self._call(
                "diffusion_denoiser",
                {
                    "latents": latents.numpy(),
                    "timestep": timestep.numpy(),
                    "tokens": window.numpy(),
                    "text_embeddings": text,
                },
                "predictions",
            )
            return torch.from_numpy(predictions)

        geometry = VideoGeometry.from_token_shape((tokens.shape[0], tokens.shape[1], tokens.shape[2]))
        latents = decode_tokens(step, tokens, geometry, seed, self.settings)
        return latents.numpy().astype(np.float32, copy=False)


def _in_process(settings: StageSettings, folder: CheckpointFolder) -> Sampler:
    from cosmos_triton.serving.stages.diffusion_torch import InProcessSampler  # profile cpu does not need it

    return InProcessSampler(settings, folder)
