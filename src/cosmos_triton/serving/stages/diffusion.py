"""diffusion_decoder: the sampling loop between the tokens and the continuous latents.

Parameter `denoiser`: `diffusion_denoiser` calls the model of that name for every step (its TensorRT
engine, or ONNX Runtime); `in-process` holds the network itself, on the GPU that the loop runs on.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_triton.checkpoints import catalog
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.diffusion.sampler import DiffusionSettings, decode_tokens
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.serving.checks import check_finite, check_range, check_shape
from cosmos_triton.serving.parameters import DiffusionDecoderParameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import integer


class Sampler(Protocol):
    """Where the forward passes run."""

    settings: DiffusionSettings
    precision: str

    def __call__(self, tokens: torch.Tensor, text: Any, seed: int) -> Any:
        """[5, h, w] int32 on the host, [512, C] → normalised latents [16, 5, H/8, W/8]."""


class DiffusionDecoderStage:
    """One video's tokens become its latents."""

    def __init__(self, settings: StageSettings[DiffusionDecoderParameters]) -> None:
        folder = CheckpointFolder(settings.checkpoint_dir)
        self._geometry = catalog.geometry(folder)
        self._vocabulary = folder.diffusion_decoder().architecture.vocabulary
        self._default_text = folder.default_text().float().numpy()  # [512, C]
        self._sampler: Sampler = (
            _in_process(settings, folder) if settings.parameters.denoiser == "in-process" else _Called()
        )

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`tokens` INT32 [5,h,w] (+ text, seed) → `latents` FP32 [16,5,H/8,W/8], normalised."""
        text = inputs.get("text_embeddings", self._default_text)
        check_shape("tokens", inputs["tokens"], self._geometry.token_shape)
        check_range("tokens", inputs["tokens"], 0, self._vocabulary - 1)
        check_shape("text_embeddings", text, self._default_text.shape)
        check_finite("text_embeddings", text)
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


def _in_process(settings: StageSettings[DiffusionDecoderParameters], folder: CheckpointFolder) -> Sampler:
    from cosmos_triton.serving.stages.diffusion_torch import InProcessSampler  # profile cpu does not need it

    return InProcessSampler(settings, folder)
