"""The diffusion decoder's network and loop in one process, on the GPU."""

import logging
import time
from contextlib import nullcontext
from typing import Any

import torch
from numpy.typing import NDArray

from cosmos_triton.architectures import TEXT_ROWS
from cosmos_triton.checkpoints import catalog
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.diffusion.denoiser import FastDenoiser
from cosmos_triton.diffusion.sampler import (
    LATENT_CHANNELS,
    DiffusionSettings,
    denoise,
    initial_noise,
    timesteps,
)
from cosmos_triton.diffusion.windows import reflect_to_window
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.residency.weights import Residency, release_memory, turn
from cosmos_triton.runtimes.pytorch import as_tensor, use_compile_cache
from cosmos_triton.serving.parameters import DiffusionDecoderParameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings

# Of the 20,480 rows that the exact setting sees; the fast one has fewer, and a part of them would not fill
# the card.
_CHUNKS = {"exact": 2, "fast": 1}

_log = logging.getLogger(__name__)


class InProcessSampler:
    """The network and the loop in one process: latents, text and weights never leave the GPU.

    Parameter `setting`: `exact`, or `fast`, which sees the five latent frames alone instead of filling
    the window of eight by reflection, and computes the large linear layers in float8.
    """

    def __init__(self, settings: StageSettings[DiffusionDecoderParameters], folder: CheckpointFolder) -> None:
        setting = settings.parameters.setting
        self._device = torch.device(settings.device)
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self._device)
        use_compile_cache()
        component = folder.diffusion_decoder()
        geometry = catalog.geometry(folder)
        self._window = component.architecture.window
        frames = geometry.token_shape[0] if setting == "fast" else self._window
        self.settings = DiffusionSettings(window=frames)
        self.precision = "fp8" if setting == "fast" else "exact"
        self._offloaded = residency(settings) is Residency.OFFLOAD
        self._denoiser = FastDenoiser(
            component.architecture,
            component.tensors,
            device=self._device,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            precision="fp8" if setting == "fast" else "exact",
            offload=self._offloaded,
            compiled=on_gpu,
            chunks=_CHUNKS[setting],
        )
        self._denoiser.prepare(timesteps(self.settings))
        release_memory(self._device)  # loading leaves pieces in which no activation fits
        self._warm_up(geometry, component.architecture.text_dim)

    def __call__(self, tokens: torch.Tensor, text: NDArray[Any], seed: int) -> torch.Tensor:
        window = reflect_to_window(tokens, self.settings.window)
        geometry = VideoGeometry.from_token_shape((tokens.shape[0], tokens.shape[1], tokens.shape[2]))
        # The noise of a frame does not depend on how many frames the network sees.
        noise = initial_noise(seed, (LATENT_CHANNELS, self._window, *geometry.latent_plane))
        noise = noise[:, : self.settings.window].to(self._device)
        with turn(self._device) if self._offloaded else nullcontext(), self._denoiser.present():
            latents = self._sample(window, text, noise)[:, : tokens.shape[0]].contiguous()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # the reader is another process
        release_memory(self._device)
        return latents

    def _sample(self, window: torch.Tensor, text: NDArray[Any], noise: torch.Tensor) -> torch.Tensor:
        conditioning = self._denoiser.condition(window, as_tensor(text, self._device))
        release_memory(self._device)  # half a gigabyte of weights that only the text needed
        return denoise(
            lambda sample, timestep: self._denoiser(sample, float(timestep), conditioning),
            noise,
            self.settings,
        )

    def _warm_up(self, geometry: VideoGeometry, text_dim: int) -> None:
        """One step at full size: compiles, or reads the compile cache."""
        began = time.monotonic()
        _, rows, columns = geometry.token_shape
        tokens = torch.zeros(self.settings.window, rows, columns, dtype=torch.int32)
        sample = torch.zeros(LATENT_CHANNELS, self.settings.window, *geometry.latent_plane)
        with turn(self._device) if self._offloaded else nullcontext(), self._denoiser.present():
            conditioning = self._denoiser.condition(tokens, torch.zeros(TEXT_ROWS, text_dim))
            self._denoiser(sample, timesteps(self.settings)[0], conditioning)
        del conditioning
        release_memory(self._device)
        _log.info("warmed up in %.1f s", time.monotonic() - began)
