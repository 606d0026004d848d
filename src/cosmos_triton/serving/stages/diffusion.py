"""diffusion_decoder: the sampling loop between the tokens and the continuous latents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.sampling.diffusion import DiffusionSettings, decode_tokens
from cosmos_triton.serving.bls import call
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import integer


class DiffusionDecoderStage:
    """Runs the loop here and each forward pass in the model `diffusion_denoiser`."""

    def __init__(self, settings: StageSettings, metrics: Metrics) -> None:
        folder = CheckpointFolder(settings.checkpoint_dir)
        self._settings = DiffusionSettings()
        self._default_text = folder.aux_context().float().numpy()  # [512, C]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`tokens` INT32 [5,h,w] (+ text, seed) → `latents` FP32 [16,5,H/8,W/8], normalised."""
        text = inputs.get("text_embeddings", self._default_text)
        seed = integer(inputs, "seed") or 0
        tokens = torch.from_numpy(inputs["tokens"].copy())

        def step(latents: torch.Tensor, timestep: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
            predictions = call(
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
        latents = decode_tokens(step, tokens, geometry, seed, self._settings)
        section = {"diffusion": {"steps": self._settings.steps, "guidance": self._settings.guidance}}
        return StageResult({"latents": latents.numpy().astype(np.float32, copy=False)}, section)

    def close(self) -> None:
        """Nothing to release."""
