"""DV8x16x16: nine frames become two latent frames of tokens; five latent frames of tokens, 33 frames.

Both directions are causal in time: the tokens of 9 frames are the first tokens of 33, and the
pixels of 2 latent frames the first pixels of 5. The two halves are separate networks, as they are
published (encoder.jit, decoder.jit).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import TokenizerArchitecture
from cosmos_triton.networks import video_autoencoder as autoencoder
from cosmos_triton.networks.quantizer import FiniteScalarQuantizer


class DiscreteEncoder(nn.Module):
    """Video [B, 3, 8k+1, H, W] in [-1, 1] -> token ids [B, k+1, H/16, W/16] int32."""

    def __init__(self, architecture: TokenizerArchitecture) -> None:
        super().__init__()
        self.encoder = autoencoder.build_encoder(architecture)
        self.quant_conv = autoencoder.CausalConv3d(architecture.z_channels, architecture.latent_channels)
        self.quantizer = FiniteScalarQuantizer(_levels(architecture))

    def latents(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> what is quantized, [B, 6, t, h, w]."""
        return self.quant_conv(self.encoder(video.to(self.quant_conv.weight.dtype)))  # type: ignore[no-any-return]

    def forward(self, video: Tensor) -> Tensor:
        return self.quantizer.encode(self.latents(video))


class DiscreteDecoder(nn.Module):
    """Token ids [B, k+1, h, w] int32 -> video [B, 3, 8k+1, 16h, 16w], about [-1, 1]."""

    def __init__(self, architecture: TokenizerArchitecture) -> None:
        super().__init__()
        self.quantizer = FiniteScalarQuantizer(_levels(architecture))
        self.post_quant_conv = autoencoder.CausalConv3d(architecture.latent_channels, architecture.z_channels)
        self.decoder = autoencoder.build_decoder(architecture)

    def forward(self, ids: Tensor) -> Tensor:
        codes = self.quantizer.decode(ids).to(self.post_quant_conv.weight.dtype)
        return self.decoder(self.post_quant_conv(codes))  # type: ignore[no-any-return]


class VideoEncoder(nn.Module):
    """The `video_encoder` stage: frames [3, 9, H, W] float32 -> tokens [2, h, w] int32."""

    def __init__(self, encoder: DiscreteEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor) -> Tensor:
        return self.encoder(frames.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]


class VideoDecoder(nn.Module):
    """The `video_decoder` stage: tokens [5, h, w] int32 -> frames [33, H, W, 3] uint8."""

    def __init__(self, decoder: DiscreteDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor) -> Tensor:
        return autoencoder.to_uint8(self.decoder(tokens.unsqueeze(0)))


def load_discrete_encoder(
    architecture: TokenizerArchitecture, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> DiscreteEncoder:
    """The encoder with its weights; see `video_autoencoder.load_half`."""
    return autoencoder.load_half(DiscreteEncoder, "encoder", architecture, tensors, dtype)


def load_discrete_decoder(
    architecture: TokenizerArchitecture, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> DiscreteDecoder:
    """The decoder with its weights; see `video_autoencoder.load_half`."""
    return autoencoder.load_half(DiscreteDecoder, "decoder", architecture, tensors, dtype)


def _levels(architecture: TokenizerArchitecture) -> tuple[int, ...]:
    if architecture.fsq_levels is None:
        raise ValueError(f"{architecture.name} has no quantizer levels: it is a continuous tokenizer")
    return architecture.fsq_levels
