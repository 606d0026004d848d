"""CV8x8x8: video to continuous latents and back.

The diffusion decoder works on normalised latents: (raw - mean) / std, with one mean and one
standard deviation per channel and per latent frame, as published in mean_std.pt.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import TokenizerArchitecture
from cosmos_triton.errors import CheckpointError
from cosmos_triton.networks import video_autoencoder as autoencoder


class LatentStatistics(nn.Module):
    """Per-channel, per-latent-frame normalisation of latents, in float32.

    Args:
        mean: any shape of 16 x F values, channels outermost, F >= the latent frames ever seen.
        std: likewise.
        channels: number of latent channels, 16.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, channels: int) -> None:
        super().__init__()
        if mean.numel() != std.numel() or mean.numel() % channels:
            raise CheckpointError(
                f"mean_std holds {mean.numel()} means and {std.numel()} deviations, "
                f"which do not fill {channels} channels"
            )
        self.register_buffer("mean", mean.float().reshape(channels, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.float().reshape(channels, -1, 1, 1), persistent=False)

    def normalise(self, raw: Tensor) -> Tensor:
        """[B, C, t, h, w] raw -> [B, C, t, h, w] normalised, float32. For parity only."""
        frames = self._frames(raw)
        return (raw.float() - self.mean[:, :frames]) / self.std[:, :frames]

    def restore(self, normalised: Tensor) -> Tensor:
        """[B, C, t, h, w] normalised -> [B, C, t, h, w] raw, float32."""
        frames = self._frames(normalised)
        return normalised.float() * self.std[:, :frames] + self.mean[:, :frames]

    def _frames(self, latents: Tensor) -> int:
        frames = latents.shape[-3]
        if frames > self.mean.shape[1]:
            raise ValueError(f"{frames} latent frames, but mean_std holds {self.mean.shape[1]}")
        return frames


class ContinuousEncoder(nn.Module):
    """Video [B, 3, 8k+1, H, W] in [-1, 1] -> raw latents [B, 16, k+1, H/8, W/8]. For parity only."""

    def __init__(self, architecture: TokenizerArchitecture) -> None:
        super().__init__()
        self.encoder = autoencoder.build_encoder(architecture)
        self.quant_conv = autoencoder.CausalConv3d(architecture.z_channels, architecture.latent_channels)

    def forward(self, video: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(video.to(self.quant_conv.weight.dtype)))  # type: ignore[no-any-return]


class ContinuousDecoder(nn.Module):
    """Raw latents [B, 16, k+1, h, w] -> video [B, 3, 8k+1, 8h, 8w], about [-1, 1]."""

    def __init__(self, architecture: TokenizerArchitecture) -> None:
        super().__init__()
        self.post_quant_conv = autoencoder.CausalConv3d(architecture.latent_channels, architecture.z_channels)
        self.decoder = autoencoder.build_decoder(architecture)

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.post_quant_conv.weight.dtype)
        return self.decoder(self.post_quant_conv(latents))  # type: ignore[no-any-return]


class LatentDecoder(nn.Module):
    """The `latent_decoder` stage: normalised latents [16, 5, h, w] -> frames [33, H, W, 3] uint8."""

    def __init__(self, decoder: ContinuousDecoder, statistics: LatentStatistics) -> None:
        super().__init__()
        self.decoder = decoder
        self.statistics = statistics

    def forward(self, latents: Tensor) -> Tensor:
        raw = self.statistics.restore(latents.unsqueeze(0))
        return autoencoder.to_uint8(self.decoder(raw))


def load_continuous_encoder(
    architecture: TokenizerArchitecture, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> ContinuousEncoder:
    """The encoder with its weights; see `video_autoencoder.load_half`."""
    return autoencoder.load_half(ContinuousEncoder, "encoder", architecture, tensors, dtype)


def load_continuous_decoder(
    architecture: TokenizerArchitecture, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> ContinuousDecoder:
    """The decoder with its weights; see `video_autoencoder.load_half`."""
    return autoencoder.load_half(ContinuousDecoder, "decoder", architecture, tensors, dtype)
