"""The diffusion decoder's network and loop in one process, on the GPU."""

import logging
import time
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from cosmos_triton.checkpoints import CheckpointFolder, catalog
from cosmos_triton.diffusion import Denoiser, DiffusionSettings, decode_tokens, timesteps
from cosmos_triton.residency import empty_cache
from cosmos_triton.runtimes import as_tensor, use_compile_cache
from cosmos_triton.serving.parameters import DiffusionDecoderParameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages.diffusion import diffusion_settings

_log = logging.getLogger(__name__)


class InProcessDecoder:
    """Latents, text and weights never leave the GPU; has run once when it is built."""

    def __init__(self, settings: StageSettings[DiffusionDecoderParameters], folder: CheckpointFolder) -> None:
        chosen = diffusion_settings(settings.parameters)
        self._device = torch.device(settings.device)
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self._device)
        use_compile_cache()
        component = folder.diffusion_decoder()
        self.settings = replace(chosen, latent_frames=component.architecture.latent_frames)
        self._denoiser = Denoiser(
            component.architecture,
            component.tensors,
            device=self._device,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            fp8=chosen.precision == "fp8",
            residency=residency(settings),
            compiled=on_gpu,
            chunks=chosen.chunks,
        )
        self.precision = self._denoiser.precision
        self._denoiser.prepare(timesteps(self.settings))
        empty_cache(self._device)  # loading leaves pieces in which no activation fits
        began = time.monotonic()
        tokens = torch.zeros(catalog.geometry(folder).token_shape, dtype=torch.int32)
        text = folder.default_text().float()
        self._decode(tokens, text, 0, replace(self.settings, steps=1))  # compiles, or reads the compile cache
        _log.info("warmed up in %.1f s", time.monotonic() - began)

    def __call__(self, tokens: torch.Tensor, text: NDArray[Any], seed: int) -> torch.Tensor:
        """[5, h, w] int32, [512, C] → normalised latents [16, 5, H/8, W/8] on the GPU."""
        return self._decode(tokens, as_tensor(text, self._device), seed, self.settings)

    def _decode(
        self, tokens: torch.Tensor, text: torch.Tensor, seed: int, settings: DiffusionSettings
    ) -> torch.Tensor:
        with self._denoiser.present():
            latents = decode_tokens(
                lambda seen: self._denoiser.for_video(seen, text), tokens.to(self._device), seed, settings
            )
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # the reader is another process
        empty_cache(self._device)
        return latents
