"""diffusion_decoder: the sampling loop between the tokens and the continuous latents.

Parameter `denoiser`: `diffusion_denoiser` calls the model of that name for every step (its TensorRT
engine, or ONNX Runtime); `in-process` holds the network itself, on the GPU that the loop runs on.
"""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_triton.checkpoints import CheckpointFolder, catalog
from cosmos_triton.diffusion import DiffusionSettings, Predict, decode_tokens
from cosmos_triton.serving.checks import check_finite, check_range, check_shape
from cosmos_triton.serving.parameters import DiffusionDecoderParameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import integer

_log = logging.getLogger(__name__)


class Decoder(Protocol):
    """Where the network runs."""

    @property
    def settings(self) -> DiffusionSettings:
        """What it computes."""

    @property
    def precision(self) -> str | None:
        """Of its large matrix products: bf16, fp8 or fp32; None where another process decides that."""

    def __call__(self, tokens: torch.Tensor, text: Any, seed: int) -> Any:
        """[5, h, w] int32 on the host, [512, C] → normalised latents [16, 5, H/8, W/8]."""


class DiffusionDecoderStage:
    """One video's tokens become its latents."""

    def __init__(self, settings: StageSettings[DiffusionDecoderParameters]) -> None:
        folder = CheckpointFolder(settings.checkpoint_dir)
        self._geometry = catalog.geometry(folder)
        self._vocabulary = folder.diffusion_decoder().architecture.vocabulary
        self._default_text = folder.default_text().float().numpy()  # [512, C]
        self._denoiser = settings.parameters.denoiser
        self._decode: Decoder = _in_process(settings, folder) if self._denoiser == "in-process" else _Called()

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`tokens` INT32 [5,h,w] (+ text, seed) → `latents` FP32 [16,5,H/8,W/8], normalised."""
        text = inputs.get("text_embeddings", self._default_text)
        check_shape("tokens", inputs["tokens"], self._geometry.token_shape)
        check_range("tokens", inputs["tokens"], 0, self._vocabulary - 1)
        check_shape("text_embeddings", text, self._default_text.shape)
        check_finite("text_embeddings", text)
        seed = integer(inputs, "seed") or 0
        tokens = torch.as_tensor(inputs["tokens"]).cpu()
        latents = self._decode(tokens, text, seed)
        chosen = self._decode.settings
        section: dict[str, Any] = {
            "denoiser": self._denoiser,
            "steps": chosen.steps,
            "guidance": chosen.guidance,
            "latent_frames": chosen.seen_frames(len(tokens)),
        }
        if self._decode.precision is not None:
            section["precision"] = self._decode.precision
        return StageResult({"latents": latents}, {"diffusion": section})


class _Called:
    """Every evaluation runs in the model `diffusion_denoiser`."""

    settings = DiffusionSettings.preset("exact")
    precision = None

    def __init__(self) -> None:
        from cosmos_triton.serving.bls import call  # exists inside Triton only

        self._call = call

    def __call__(self, tokens: torch.Tensor, text: NDArray[Any], seed: int) -> NDArray[np.float32]:
        def network(seen: torch.Tensor) -> Predict:
            constant = {"tokens": seen.numpy(), "text_embeddings": text}
            return lambda latents, timestep: torch.from_numpy(
                self._call(
                    "diffusion_denoiser",
                    {"latents": latents.numpy(), "timestep": timestep.numpy(), **constant},
                    "predictions",
                )
            )

        return decode_tokens(network, tokens, seed, self.settings).numpy()


def diffusion_settings(parameters: DiffusionDecoderParameters) -> DiffusionSettings:
    """The preset, changed by `frames` and `precision` where they are not empty."""
    preset = parameters.preset
    if parameters.setting:
        preset = {"fast": "reduced"}.get(parameters.setting, parameters.setting)
        _log.warning("the parameter `setting` is now `preset`: %s is %s", parameters.setting, preset)
    changes = {"frames": parameters.frames, "precision": parameters.precision}
    return DiffusionSettings.preset(preset, **{key: value for key, value in changes.items() if value})


def _in_process(settings: StageSettings[DiffusionDecoderParameters], folder: CheckpointFolder) -> Decoder:
    from cosmos_triton.serving.stages.diffusion_torch import InProcessDecoder  # profile cpu does not need it

    return InProcessDecoder(settings, folder)
