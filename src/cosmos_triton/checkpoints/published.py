"""Names and shapes of every tensor that NVIDIA (and Google, for T5) publish.

Canonical names are those of the files, without the optional `model.` prefix of the autoregressive
checkpoints. Functions return them in the order of the networks. `FAMILIES` says, for each kind of
network, which presets exist, which functions list their tensors, and which further tensors a file
may carry because they are rebuilt or unused instead of loaded.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
    AutoregressiveArchitecture,
    DiffusionDecoderArchitecture,
    TextEncoderArchitecture,
    TokenizerArchitecture,
)

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

PREFIX = "model."
PIXEL_CHANNELS = 3
DIFFUSION_PATCH_PIXELS = 2 * 2  # latent pixels in one patch of the diffusion network
MEAN_STD_FRAMES = 16  # latent frames that the published mean_std.pt covers


def autoregressive_shapes(arch: AutoregressiveArchitecture) -> Shapes:
    """Tensors of `model.pt`: 179 (4B), 291 (5B), 443 (12B), 723 (13B). Linear weights are [out, in]."""
    queries, keys = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    shapes: Shapes = {"tok_embeddings.weight": (arch.embedding_rows, arch.dim)}
    for layer in range(arch.layers):
        name = f"layers.{layer}."
        shapes |= _attention_shapes(f"{name}attention.", arch.dim, arch.dim, queries, keys, arch.head_dim)
        if arch.text_dim is not None:
            shapes |= _attention_shapes(
                f"{name}cross_attention.", arch.dim, arch.text_dim, queries, keys, arch.head_dim
            )
            shapes[f"{name}cross_attention_norm.weight"] = (arch.dim,)
        shapes |= {
            f"{name}feed_forward.w1.weight": (arch.ffn_dim, arch.dim),
            f"{name}feed_forward.w2.weight": (arch.dim, arch.ffn_dim),
            f"{name}feed_forward.w3.weight": (arch.ffn_dim, arch.dim),
            f"{name}attention_norm.weight": (arch.dim,),
            f"{name}ffn_norm.weight": (arch.dim,),
        }
    return shapes | {"norm.weight": (arch.dim,), "output.weight": (arch.vocabulary, arch.dim)}


def _attention_shapes(name: str, dim: int, attended: int, queries: int, keys: int, head: int) -> Shapes:
    return {
        f"{name}wq.weight": (queries, dim),
        f"{name}wk.weight": (keys, attended),
        f"{name}wv.weight": (keys, attended),
        f"{name}wo.weight": (dim, queries),
        f"{name}q_norm.weight": (head,),
        f"{name}k_norm.weight": (head,),
    }


def tokenizer_shapes(arch: TokenizerArchitecture) -> Shapes:
    """Parameters of `autoencoder.jit`, which are those of `encoder.jit` and `decoder.jit` together."""
    return tokenizer_encoder_shapes(arch) | tokenizer_decoder_shapes(arch)


def tokenizer_encoder_shapes(arch: TokenizerArchitecture) -> Shapes:
    """Parameters of `encoder.jit`. Convolutions are [out, in, T, H, W]."""
    widths = _level_widths(arch)
    shapes = _factorised("encoder.conv_in", _patch_channels(arch), arch.channels)
    entering = arch.channels
    for level, width in enumerate(widths):
        name = f"encoder.down.{level}."
        for block in range(arch.residual_blocks):
            shapes |= _residual(f"{name}block.{block}.", entering, width)
            entering = width
        spatial, temporal = level < _spatial_steps(arch), level < _temporal_steps(arch)
        shapes |= _resample(f"{name}downsample.", width, spatial, temporal, spatial_first=True)
    shapes |= _middle("encoder.mid.", entering)
    shapes |= _norm("encoder.norm_out.", entering)
    shapes |= _factorised("encoder.conv_out", entering, arch.z_channels)
    return shapes | _convolution("quant_conv.", arch.z_channels, arch.latent_channels)


def tokenizer_decoder_shapes(arch: TokenizerArchitecture) -> Shapes:
    """Parameters of `decoder.jit`. Level `up.2` runs first."""
    widths = _level_widths(arch)
    last = len(widths) - 1
    shapes = _convolution("post_quant_conv.", arch.latent_channels, arch.z_channels)
    shapes |= _factorised("decoder.conv_in", arch.z_channels, widths[-1])
    shapes |= _middle("decoder.mid.", widths[-1])
    entering = widths[-1]
    spatial_steps, temporal_steps = _spatial_steps(arch), _temporal_steps(arch)
    for level in reversed(range(len(widths))):
        name = f"decoder.up.{level}."
        for block in range(arch.residual_blocks + 1):
            shapes |= _residual(f"{name}block.{block}.", entering, widths[level])
            entering = widths[level]
        # Time grows from the second level that runs; space grows with it, and in the first level
        # too where the tokenizer compresses space more than time.
        order = last - level
        temporal = 0 < order <= temporal_steps
        spatial = temporal or (order < spatial_steps and spatial_steps > temporal_steps)
        shapes |= _resample(f"{name}upsample.", entering, spatial, temporal, spatial_first=False)
    shapes |= _norm("decoder.norm_out.", entering)
    return shapes | _factorised("decoder.conv_out", entering, _patch_channels(arch))


def _level_widths(arch: TokenizerArchitecture) -> list[int]:
    grids = [arch.resolution // arch.patch_size // 2**level for level in range(len(arch.channel_multipliers))]
    if set(grids) & set(arch.attention_resolutions):
        raise ValueError(
            f"{arch.name}: attention at {arch.attention_resolutions} is not in any published file"
        )
    return [arch.channels * multiplier for multiplier in arch.channel_multipliers]


def _patch_channels(arch: TokenizerArchitecture) -> int:
    return int(PIXEL_CHANNELS * arch.patch_size**3)  # 3 -> 192 for patches of 4x4x4


def _spatial_steps(arch: TokenizerArchitecture) -> int:
    return int(math.log2(arch.spatial_compression // arch.patch_size))


def _temporal_steps(arch: TokenizerArchitecture) -> int:
    return int(math.log2(arch.temporal_compression // arch.patch_size))


def _convolution(name: str, entering: int, leaving: int, kernel: Shape = (1, 1, 1)) -> Shapes:
    return {f"{name}conv3d.weight": (leaving, entering, *kernel), f"{name}conv3d.bias": (leaving,)}


def _factorised(name: str, entering: int, leaving: int) -> Shapes:
    spatial = _convolution(f"{name}.0.", entering, leaving, (1, 3, 3))
    return spatial | _convolution(f"{name}.1.", leaving, leaving, (3, 1, 1))


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}norm.weight": (width,), f"{name}norm.bias": (width,)}


def _residual(name: str, entering: int, leaving: int) -> Shapes:
    shapes = _norm(f"{name}norm1.", entering) | _factorised(f"{name}conv1", entering, leaving)
    shapes |= _norm(f"{name}norm2.", leaving) | _factorised(f"{name}conv2", leaving, leaving)
    return shapes if entering == leaving else shapes | _convolution(f"{name}nin_shortcut.", entering, leaving)


def _middle(name: str, width: int) -> Shapes:
    shapes = _residual(f"{name}block_1.", width, width)
    for attention in (0, 1):  # over space, then over time
        inner = f"{name}attn_1.{attention}."
        shapes |= _norm(f"{inner}norm.", width)
        for projection in ("q", "k", "v", "proj_out"):
            shapes |= _convolution(f"{inner}{projection}.", width, width)
    return shapes | _residual(f"{name}block_2.", width, width)


def _resample(name: str, width: int, spatial: bool, temporal: bool, spatial_first: bool) -> Shapes:
    """A level's down- or upsampling; the one that changes neither space nor time has no parameters."""
    space, time = ("conv1", "conv2") if spatial_first else ("conv2", "conv1")
    shapes: Shapes = {}
    if spatial:
        shapes |= _convolution(f"{name}{space}.", width, width, (1, 3, 3))
    if temporal:
        shapes |= _convolution(f"{name}{time}.", width, width, (3, 1, 1))
    return shapes | _convolution(f"{name}conv3.", width, width) if shapes else {}


def tokenizer_buffers(arch: TokenizerArchitecture, part: str) -> Shapes:
    """Buffers that the published archive `part` (`encoder`, `decoder`, `autoencoder`) also holds."""
    encoder: Shapes = {
        "encoder.patcher3d.wavelets": (2,),
        "encoder.patcher3d._arange": (2,),
        "encoder.patcher3d.patch_size_buffer": (1,),
    }
    decoder: Shapes = {"decoder.unpatcher3d.wavelets": (2,), "decoder.unpatcher3d._arange": (2,)}
    quantizer: Shapes = {}
    if arch.fsq_levels is not None:
        codes = len(arch.fsq_levels)
        quantizer = {
            "_levels": (codes,),
            "_basis": (codes,),
            "implicit_codebook": (arch.codebook_size, codes),
        }
    own = {f"quantizer.{name}": shape for name, shape in quantizer.items()}
    inverse = {f"inv_quant.quantizer.{name}": shape for name, shape in quantizer.items()}
    return {
        "encoder": encoder | own,
        "decoder": decoder | inverse,
        "autoencoder": encoder | decoder | own,
    }[part]


def diffusion_decoder_shapes(arch: DiffusionDecoderArchitecture) -> Shapes:
    """Tensors `net.*` of the diffusion decoder's `model.pt` that are loaded: 568 for the 7B network."""
    dim, lora = arch.dim, arch.adaln_lora_dim
    head = dim // arch.heads
    patch = (arch.latent_channels + arch.token_dim + 1) * DIFFUSION_PATCH_PIXELS  # 1 is the padding mask
    shapes: Shapes = {
        "net.x_embedder.proj.1.weight": (dim, patch),
        "net.token_embedder.weight": (arch.vocabulary, arch.token_dim),
        "net.t_embedder.1.linear_1.weight": (dim, dim),
        "net.t_embedder.1.linear_2.weight": (3 * dim, dim),
        "net.affline_norm.weight": (dim,),
    }
    for layer in range(arch.layers):
        name = f"net.blocks.block{layer}.blocks."
        for block, context in ((0, dim), (1, arch.text_dim)):  # self-attention, cross-attention
            attention = f"{name}{block}.block.attn."
            shapes |= {
                f"{attention}to_q.0.weight": (dim, dim),
                f"{attention}to_q.1.weight": (head,),
                f"{attention}to_k.0.weight": (dim, context),
                f"{attention}to_k.1.weight": (head,),
                f"{attention}to_v.0.weight": (dim, context),
                f"{attention}to_out.0.weight": (dim, dim),
            }
        shapes[f"{name}2.block.layer1.weight"] = (4 * dim, dim)
        shapes[f"{name}2.block.layer2.weight"] = (dim, 4 * dim)
        for block in range(3):
            shapes |= _modulation(f"{name}{block}.adaLN_modulation.", dim, lora, 3)
    shapes |= _modulation("net.final_layer.adaLN_modulation.", dim, lora, 2)
    shapes["net.final_layer.linear.weight"] = (arch.latent_channels * DIFFUSION_PATCH_PIXELS, dim)
    return shapes


def _modulation(name: str, dim: int, lora: int, chunks: int) -> Shapes:
    return {f"{name}1.weight": (lora, dim), f"{name}2.weight": (chunks * dim, lora)}


def diffusion_decoder_buffers(arch: DiffusionDecoderArchitecture) -> Shapes:
    """Tensors of the diffusion decoder's `model.pt` that inference never reads."""
    longest_axis = 128  # latent frames, more than the 120 patches per side
    return {
        "net.pos_embedder.seq": (longest_axis,),
        "logvar.0.freqs": (128,),
        "logvar.0.phases": (128,),
        "logvar.1.weight": (1, 128),
    }


def text_encoder_shapes(arch: TextEncoderArchitecture) -> Shapes:
    """Tensors of the encoder half of T5, plus the embedding that both halves share."""
    return {"shared.weight": (arch.vocabulary, arch.dim)} | _t5_stack(arch, "encoder", cross_attention=False)


def text_decoder_shapes(arch: TextEncoderArchitecture) -> Shapes:
    """Tensors of the decoder half of T5, which the published file holds and nothing here reads."""
    return _t5_stack(arch, "decoder", cross_attention=True)


def _t5_stack(arch: TextEncoderArchitecture, stack: str, cross_attention: bool) -> Shapes:
    inner = arch.heads * arch.head_dim
    attentions = ["SelfAttention", "EncDecAttention"] if cross_attention else ["SelfAttention"]
    shapes: Shapes = {}
    for layer in range(arch.layers):
        name = f"{stack}.block.{layer}.layer."
        for index, attention in enumerate(attentions):
            for projection in ("q", "k", "v"):
                shapes[f"{name}{index}.{attention}.{projection}.weight"] = (inner, arch.dim)
            shapes[f"{name}{index}.{attention}.o.weight"] = (arch.dim, inner)
            if layer == 0 and index == 0:
                bias = f"{name}0.SelfAttention.relative_attention_bias.weight"
                shapes[bias] = (arch.relative_buckets, arch.heads)
            shapes[f"{name}{index}.layer_norm.weight"] = (arch.dim,)
        last = len(attentions)
        shapes[f"{name}{last}.DenseReluDense.wi.weight"] = (arch.ffn_dim, arch.dim)
        shapes[f"{name}{last}.DenseReluDense.wo.weight"] = (arch.dim, arch.ffn_dim)
        shapes[f"{name}{last}.layer_norm.weight"] = (arch.dim,)
    return shapes | {f"{stack}.final_layer_norm.weight": (arch.dim,)}


def parameters(shapes: Iterable[Shape]) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(math.prod(shape) for shape in shapes)


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of network, as its checkpoints show it."""

    name: str
    presets: Mapping[str, Any]  # architectures by name, all of one class
    shapes: Callable[[Any], Shapes]
    not_loaded: re.Pattern[str]  # tensors that a file may hold besides those of `shapes`
    copies: Mapping[str, str] = field(default_factory=dict)  # names that stand in for a published one

    def canonical(self, name: str) -> str | None:
        """The published name of a file's tensor `name`, or None where it is not loaded.

        `model.layers.0…` and `layers.0…` are the same tensor.
        """
        name = name.removeprefix(PREFIX)
        return None if self.not_loaded.fullmatch(name) else name

    def canonical_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors under published names, without those that are not loaded.

        A tensor given twice, with and without prefix, is marked so, and will not fit.
        """
        named: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            published = self.canonical(name)
            if published is not None:
                named[f"{published} (given twice)" if published in named else published] = tensor
        for copy, published in self.copies.items():
            if copy in tensors:
                named.setdefault(published, tensors[copy])
        return named


_EXTRA_STATE = r".*_extra_state"  # Transformer Engine's bookkeeping
_TOKENIZER_BUFFERS = r"encoder\.patcher3d\..*|decoder\.unpatcher3d\..*|(inv_quant\.)?quantizer\..*"

AUTOREGRESSIVE_FAMILY = Family(
    "autoregressive transformer", AUTOREGRESSIVE, autoregressive_shapes, re.compile(_EXTRA_STATE)
)
DISCRETE_TOKENIZER_FAMILY = Family(
    "discrete tokenizer", DISCRETE_TOKENIZERS, tokenizer_shapes, re.compile(_TOKENIZER_BUFFERS)
)
CONTINUOUS_TOKENIZER_FAMILY = Family(
    "continuous tokenizer", CONTINUOUS_TOKENIZERS, tokenizer_shapes, re.compile(_TOKENIZER_BUFFERS)
)
DIFFUSION_DECODER_FAMILY = Family(
    "diffusion decoder",
    DIFFUSION_DECODERS,
    diffusion_decoder_shapes,
    re.compile(rf"{_EXTRA_STATE}|net\.pos_embedder\..*|logvar\..*|conditioner\..*"),
)
TEXT_ENCODER_FAMILY = Family(
    "text encoder",
    TEXT_ENCODERS,
    text_encoder_shapes,
    # The decoder half, and copies of `shared.weight` that some files hold.
    re.compile(r"decoder\..*|lm_head\.weight|encoder\.embed_tokens\.weight"),
    copies={"encoder.embed_tokens.weight": "shared.weight"},
)

FAMILIES = (
    AUTOREGRESSIVE_FAMILY,
    DISCRETE_TOKENIZER_FAMILY,
    CONTINUOUS_TOKENIZER_FAMILY,
    DIFFUSION_DECODER_FAMILY,
    TEXT_ENCODER_FAMILY,
)
