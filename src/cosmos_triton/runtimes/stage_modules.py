"""The pipeline's networks as PyTorch modules that take and return their stages' own tensors."""

from collections.abc import Callable

import torch
from torch import nn

from cosmos_triton.checkpoints import CheckpointFolder
from cosmos_triton.diffusion import DiffusionDenoiser, load_diffusion_transformer
from cosmos_triton.networks import (
    LatentDecoder,
    LatentStatistics,
    VideoDecoder,
    VideoEncoder,
    load_continuous_decoder,
    load_discrete_decoder,
    load_discrete_encoder,
    load_text_encoder,
)
from cosmos_triton.pipeline import Network


def load_module(network: Network, folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    """A network with its weights, cast to a type, or as published for None.

    Raises:
        CheckpointError: the folder does not hold it whole.
    """
    return _LOADERS[network.name](folder, dtype)


def blocks_of(network: Network, module: nn.Module) -> list[nn.Module]:
    """Submodules that run one after the other, once each; none for a shallow network."""
    return list(module.get_submodule(network.blocks).children()) if network.blocks else []


def _video_encoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    tokenizer = folder.discrete_tokenizer()
    return VideoEncoder(load_discrete_encoder(tokenizer.architecture, tokenizer.tensors, dtype)).eval()


def _video_decoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    tokenizer = folder.discrete_tokenizer()
    return VideoDecoder(load_discrete_decoder(tokenizer.architecture, tokenizer.tensors, dtype)).eval()


def _text_encoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    encoder = folder.text_encoder()
    return load_text_encoder(encoder.architecture, encoder.tensors, dtype)


def _diffusion_denoiser(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    decoder = folder.diffusion_decoder()
    return DiffusionDenoiser(load_diffusion_transformer(decoder.architecture, decoder.tensors, dtype)).eval()


def _latent_decoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    tokenizer = folder.continuous_tokenizer()
    mean, std = folder.mean_std()
    statistics = LatentStatistics(mean, std, tokenizer.architecture.latent_channels)
    decoder = load_continuous_decoder(tokenizer.architecture, tokenizer.tensors, dtype)
    return LatentDecoder(decoder, statistics).eval()


_LOADERS: dict[str, Callable[[CheckpointFolder, torch.dtype | None], nn.Module]] = {
    "video_encoder": _video_encoder,
    "video_decoder": _video_decoder,
    "text_encoder": _text_encoder,
    "diffusion_denoiser": _diffusion_denoiser,
    "latent_decoder": _latent_decoder,
}
