"""The causal convolutional trunk shared by the discrete and the continuous tokenizer.

Encoder and decoder are diffusers' CosmosEncoder3d and CosmosDecoder3d with three parts replaced by
equal ones that export cleanly: the wavelet patching by one constant matrix (`haar`); spatial
attention by one call per latent frame, which divides the memory of its scores by the number of
frames; and the convolutions by ones that pad in the convolution itself and only where there is
something to pad, which takes two thirds of the nodes out of the graph.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
    CosmosCausalAttention,
    CosmosCausalConv3d,
    CosmosDecoder3d,
    CosmosEncoder3d,
)
from torch import Tensor, nn

from cosmos_triton.architectures import TokenizerArchitecture
from cosmos_triton.networks.attention import scaled_attention
from cosmos_triton.networks.haar import HaarPatcher, HaarUnpatcher
from cosmos_triton.networks.loading import Module, Renames, load, without

_PREFIXES = {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "post_quant_conv.")}


class CausalConv3d(nn.Conv3d):
    """A convolution that sees no later frame: time is padded with the first frame, space with zeros."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
        spatial_padding: int = 0,
    ) -> None:
        padding = (0, spatial_padding, spatial_padding)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.repeats = kernel_size[0] - stride[0]

    def forward(self, video: Tensor) -> Tensor:
        if self.repeats:
            first = video[:, :, :1].expand(-1, -1, self.repeats, -1, -1)
            video = torch.cat([first, video], dim=2)
        return super().forward(video)


class PerFrameSpatialAttention:
    """Single-head attention over the positions of each frame, one frame after the other."""

    def __call__(
        self, attn: CosmosCausalAttention, hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        batch, _, frames, height, width = hidden_states.shape
        # [B, C, T, H, W] -> [B T, 1, H W, C]
        query, key, value = (
            tensor.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1).unsqueeze(1)
            for tensor in _project(attn, hidden_states)
        )
        attended = torch.cat(
            [
                scaled_attention(query[i : i + 1], key[i : i + 1], value[i : i + 1])
                for i in range(batch * frames)
            ]
        )
        # [B T, 1, H W, C] -> [B, C, T, H, W]
        grid = attended.reshape(batch, frames, height, width, -1).permute(0, 4, 1, 2, 3)
        output: Tensor = hidden_states + attn.to_out[0](grid)
        return output


class TemporalAttention:
    """Single-head attention over the frames of each position; no frame sees a later one."""

    def __call__(
        self, attn: CosmosCausalAttention, hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        batch, _, frames, height, width = hidden_states.shape
        # [B, C, T, H, W] -> [B H W, 1, T, C]
        query, key, value = (
            tensor.permute(0, 3, 4, 2, 1).flatten(0, 2).unsqueeze(1)
            for tensor in _project(attn, hidden_states)
        )
        attended = scaled_attention(query, key, value, attention_mask)
        # [B H W, 1, T, C] -> [B, C, T, H, W]
        grid = attended.reshape(batch, height, width, frames, -1).permute(0, 4, 3, 1, 2)
        output: Tensor = hidden_states + attn.to_out[0](grid)
        return output


def _project(attn: CosmosCausalAttention, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    normed = attn.norm(hidden_states)
    return attn.to_q(normed), attn.to_k(normed), attn.to_v(normed)


def build_encoder(architecture: TokenizerArchitecture) -> CosmosEncoder3d:
    """[B, 3, T, H, W] in [-1, 1] -> [B, z_channels, t, h, w]."""
    widths = [architecture.channels, *_level_widths(architecture)]
    encoder = CosmosEncoder3d(
        out_channels=architecture.z_channels,
        block_out_channels=tuple(widths),
        **_structure(architecture),
    )
    encoder.patch_embed = HaarPatcher(architecture.patch_size)  # type: ignore[assignment]
    _simplify(encoder)
    return encoder


def build_decoder(architecture: TokenizerArchitecture) -> CosmosDecoder3d:
    """[B, z_channels, t, h, w] -> [B, 3, T, H, W]."""
    widths = [*_level_widths(architecture), architecture.channels * architecture.channel_multipliers[-1]]
    decoder = CosmosDecoder3d(
        in_channels=architecture.z_channels,
        block_out_channels=tuple(widths),
        **_structure(architecture),
    )
    decoder.unpatch_embed = HaarUnpatcher(architecture.patch_size)  # type: ignore[assignment]
    _simplify(decoder)
    return decoder


def renames(architecture: TokenizerArchitecture) -> Renames:
    """Published names (`encoder.down.0.block.0.conv1.0.conv3d.weight`) → diffusers' names."""
    levels = len(architecture.channel_multipliers)
    return (
        (r"\.conv3d\.", "."),
        (r"\.(conv_in|conv_out|conv1|conv2)\.0\.", r".\1.conv_s."),
        (r"\.(conv_in|conv_out|conv1|conv2)\.1\.", r".\1.conv_t."),
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        # The published decoder counts its levels from the finest, diffusers from the coarsest.
        *((rf"^decoder\.up\.{i}\.", f"decoder.up_blocks.{levels - 1 - i}.") for i in range(levels)),
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.downsample\.", ".downsamplers.0."),
        (r"\.upsample\.", ".upsamplers.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.0\.", ".mid_block.attentions.0."),
        (r"\.mid\.attn_1\.1\.", ".mid_block.temp_attentions.0."),
        (r"\.(q|k|v)\.(weight|bias)$", r".to_\1.\2"),
        (r"\.proj_out\.", ".to_out.0."),
    )


def load_half(
    network: Callable[[TokenizerArchitecture], Module],
    half: Literal["encoder", "decoder"],
    architecture: TokenizerArchitecture,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> Module:
    """One half of a tokenizer with its weights.

    Args:
        network: builds it.
        half: which one it is.
        architecture: what to build.
        tensors: the tokenizer's tensors under published names, without buffers. Those of the
            other half are left aside; any other name that does not fit is an error.
        dtype: type of the weights; None keeps the checkpoint's.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    other = _PREFIXES["decoder" if half == "encoder" else "encoder"]
    return load(
        lambda: network(architecture),
        without(tensors, other),
        renames(architecture),
        what=f"{architecture.name} {half}",
        dtype=dtype,
    )


def to_uint8(video: Tensor) -> Tensor:
    """Pixels as they are written to a file.

    Args:
        video: [1, 3, T, H, W] in [-1, 1]; values outside are clamped.

    Returns:
        [T, H, W, 3] uint8, (1 + v) / 2 * 255 truncated.
    """
    levels = (1 + video[0].float().clamp(-1, 1)) / 2 * 255
    # floor() makes the truncation explicit, so that no backend's cast can round; the cast comes last,
    # because TensorRT has uint8 at a graph's border only.
    return levels.floor().permute(1, 2, 3, 0).to(torch.uint8)


def _structure(architecture: TokenizerArchitecture) -> dict[str, Any]:
    """What diffusers' encoder and decoder are both told."""
    return {
        "num_resnet_blocks": architecture.residual_blocks,
        "attention_resolutions": architecture.attention_resolutions,
        "resolution": architecture.resolution,
        "patch_size": architecture.patch_size,
        "spatial_compression_ratio": architecture.spatial_compression,
        "temporal_compression_ratio": architecture.temporal_compression,
    }


def _level_widths(architecture: TokenizerArchitecture) -> list[int]:
    return [architecture.channels * multiplier for multiplier in architecture.channel_multipliers]


def _simplify(trunk: nn.Module) -> None:
    for name, module in list(trunk.named_modules()):
        if isinstance(module, CosmosCausalAttention):
            temporal = "temp_attentions" in name
            module.processor = TemporalAttention() if temporal else PerFrameSpatialAttention()  # type: ignore[assignment]
        if isinstance(module, CosmosCausalConv3d):
            trunk.set_submodule(name, _simplified(module))


def _simplified(convolution: CosmosCausalConv3d) -> CausalConv3d:
    time, height, width = convolution.kernel_size
    return CausalConv3d(
        convolution.in_channels,
        convolution.out_channels,
        (time, height, width),
        (convolution.stride[0], convolution.stride[1], convolution.stride[2]),
        convolution.spatial_pad[0],
    )
