"""The training forward of the project's tokenizers: the same parameters, in a form that is quick to train.

The networks as served (`networks.video_autoencoder`) are built for export and inference: their quantizer
rounds, attention runs frame by frame, and every convolution is three-dimensional. Here the same modules'
parameters are used channels-last, with two-dimensional convolutions over [frames, rows, columns] and over
[time, pixels], which is what a GPU is quick at, and gradients pass through the quantizer. Tests hold both
forms against each other.

While a tokenizer trains, the Haar bands on both sides of it have about unit deviation: fine detail enters
at a hundredth of the mean's size, and an optimizer would take thousands of steps to find it. `fold` works
the scales into the first and last convolutions, after which the modules are what the checkpoint holds.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
    CosmosCausalAttention,
    CosmosConvProjection3d,
    CosmosDownsample3d,
    CosmosMidBlock3d,
    CosmosResnetBlock3d,
    CosmosUpsample3d,
)
from torch import Tensor, nn

from cosmos_triton.architectures import TokenizerArchitecture
from cosmos_triton.networks import (
    ContinuousDecoder,
    ContinuousEncoder,
    DiscreteDecoder,
    DiscreteEncoder,
    haar_matrix,
)

COLOURS = 3
_NORM_EPS = 1e-6
_EDGE = 1e-3  # see networks.quantizer
_LEAST_SCALE = 1e-3

Weights = tuple[Tensor, ...]  # weight and bias of a convolution, or nothing where there is none

# What is compiled: functions of tensors, each with several shapes. Frames [B, T, H, W, C] throughout.


def _space(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    """A convolution over rows and columns, weight [out, in, 1, 3, 3]."""
    flat = x.flatten(0, 1).permute(0, 3, 1, 2)  # [B T, C, H, W], channels last in memory
    out = F.conv2d(flat, weight[:, :, 0].to(x.dtype), bias.to(x.dtype), stride, padding)
    return out.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def _time(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, before: int = 2) -> Tensor:
    """A causal convolution over frames, weight [out, in, 3, 1, 1]; before the first it sees the first."""
    height, width = x.shape[2:4]
    padded = torch.cat([x[:, :1].expand(-1, before, -1, -1, -1), x], dim=1)
    flat = padded.flatten(2, 3).permute(0, 3, 1, 2)  # [B, C, T, H W], channels last in memory
    out = F.conv2d(flat, weight[..., 0].to(x.dtype), bias.to(x.dtype), (stride, 1))
    return out.permute(0, 2, 3, 1).unflatten(2, (height, width))


def _point(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of one pixel, weight [out, in, 1, 1, 1]."""
    return F.linear(x, weight.flatten(1).to(x.dtype), bias.to(x.dtype))


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each frame to mean 0 and deviation 1 over its pixels and channels, then an affine map a channel."""
    wide = x.float()
    variance, mean = torch.var_mean(wide, dim=(2, 3, 4), keepdim=True, correction=0)
    return ((wide - mean) * torch.rsqrt(variance + _NORM_EPS) * weight + bias).to(x.dtype)


def _residual(x: Tensor, shortcut: Weights, *p: Tensor) -> Tensor:
    hidden = _space(F.silu(_norm(x, p[0], p[1])), p[2], p[3])
    hidden = _time(hidden, p[4], p[5])
    hidden = _space(F.silu(_norm(hidden, p[6], p[7])), p[8], p[9])
    hidden = _time(hidden, p[10], p[11])
    return hidden + (_point(x, *shortcut) if shortcut else x)


def _ending(x: Tensor, *p: Tensor) -> Tensor:
    return _time(_space(F.silu(_norm(x, p[0], p[1])), p[2], p[3]), p[4], p[5])


def _attention(x: Tensor, temporal: bool, *p: Tensor) -> Tensor:
    normed = _norm(x, p[0], p[1])
    batch, frames, height, width, channels = x.shape
    q, k, v = (_point(normed, p[i], p[i + 1]) for i in (2, 4, 6))

    def rows(y: Tensor) -> Tensor:
        if temporal:  # [B, T, H, W, C] -> [B H W, 1, T, C]
            return y.permute(0, 2, 3, 1, 4).reshape(-1, 1, frames, channels)
        return y.reshape(-1, 1, height * width, channels)

    seen = F.scaled_dot_product_attention(rows(q), rows(k), rows(v), is_causal=temporal)
    if temporal:
        grid = seen.reshape(batch, height, width, frames, channels).permute(0, 3, 1, 2, 4)
    else:
        grid = seen.reshape(x.shape)
    return x + _point(grid, p[8], p[9])


def _pool_space(x: Tensor) -> Tensor:
    batch, frames, height, width, channels = x.shape
    cells = x.reshape(batch, frames, height // 2, 2, width // 2, 2, channels)
    return cells.mean(dim=(3, 5))


def _down(x: Tensor, space: Weights, time: Weights, last: Weights) -> Tensor:
    """Half the rows and columns where there are weights for it, then half the frames."""
    if space:
        x = _space(F.pad(x, (0, 0, 0, 1, 0, 1)), *space, 2, 0) + _pool_space(x)
    if time:
        longer = torch.cat([x[:, :1], x], dim=1)
        pairs = longer.unflatten(1, (-1, 2)).mean(dim=2)
        x = _time(longer, *time, 2, 1) + pairs
    return _point(x, *last)


def _up(x: Tensor, time: Weights, space: Weights, last: Weights) -> Tensor:
    """Twice the frames where there are weights for it, then twice the rows and columns."""
    if time:
        x = x.repeat_interleave(2, dim=1)[:, 1:] if x.shape[1] > 1 else x
        x = _time(x, *time) + x
    if space:
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = _space(x, *space) + x
    return _point(x, *last)


_COMPILED: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}


def compile_all(backend: str = "inductor") -> None:
    """Compile the blocks for training, one kernel set a shape; without gradients they run as they are."""
    torch._dynamo.config.recompile_limit = 64
    for block in (_residual, _ending, _attention, _down, _up):
        _COMPILED[block] = torch.compile(block, dynamic=False, backend=backend)


def _run(block: Callable[..., Tensor], x: Tensor, *arguments: Any) -> Tensor:
    return (_COMPILED.get(block, block) if torch.is_grad_enabled() else block)(x, *arguments)


class TrainableTokenizer(nn.Module):
    """Encoder and decoder of a tokenizer, with gradients.

    Args:
        architecture: discrete if it has quantizer levels, else continuous.
    """

    bands: Tensor  # [p^3, p^3], the Haar matrix
    scale: Tensor  # [p^3 * 3], deviation of each band and colour

    def __init__(self, architecture: TokenizerArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        if architecture.fsq_levels is None:
            self.encoder: nn.Module = ContinuousEncoder(architecture)
            self.decoder: nn.Module = ContinuousDecoder(architecture)
        else:
            self.encoder, self.decoder = DiscreteEncoder(architecture), DiscreteDecoder(architecture)
        channels = COLOURS * architecture.patch_size**3
        self.register_buffer("bands", haar_matrix(architecture.patch_size))
        self.register_buffer("scale", torch.ones(channels))
        self.requires_grad_(True)

    @torch.no_grad()
    def measure_scale(self, video: Tensor) -> None:
        """Take the deviation of each band from video [B, T, H, W, 3] in [-1, 1]; what is computed stays."""
        bands = self._to_bands(video, torch.ones_like(self.scale))
        self._rescale(bands.square().mean(dim=(0, 1, 2, 3)).sqrt().clamp(min=_LEAST_SCALE))

    def encode(self, video: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Video [B, T, H, W, 3] in [-1, 1] → what is quantized, or raw latents: [B, t, h, w, C] float32."""
        trunk = self.encoder.encoder
        x = self._to_bands(video, self.scale).to(dtype)
        x = _time(_space(x, *_both(trunk.conv_in.conv_s)), *_both(trunk.conv_in.conv_t))
        for block in trunk.down_blocks:
            for resnet in block.resnets:
                x = _run_residual(resnet, x)
            for sampler in block.downsamplers or ():
                x = _resample(_down, sampler, x)
        x = _end(trunk.norm_out, trunk.conv_out, _middle(trunk.mid_block, x))
        return _point(x.float(), *_both(self.encoder.quant_conv))

    def decode(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Codes or raw latents [B, t, h, w, C] → video [B, T, H, W, 3] float32, about [-1, 1]."""
        trunk = self.decoder.decoder
        x = _point(codes, *_both(self.decoder.post_quant_conv)).to(dtype)
        x = _time(_space(x, *_both(trunk.conv_in.conv_s)), *_both(trunk.conv_in.conv_t))
        x = _middle(trunk.mid_block, x)
        for block in trunk.up_blocks:
            for resnet in block.resnets:
                x = _run_residual(resnet, x)
            for sampler in block.upsamplers or ():
                x = _resample(_up, sampler, x)
        return self._to_video(_end(trunk.norm_out, trunk.conv_out, x).float() * self.scale)

    def quantize(self, latents: Tensor) -> Tensor:
        """Latents [B, t, h, w, C] float32 → codes in [-1, 1]; gradients pass as if nothing were rounded."""
        levels: Tensor = self.encoder.quantizer.levels.flatten()  # type: ignore[assignment, union-attr, operator]
        half_range = (levels - 1) * (1 + _EDGE) / 2
        offset = 0.5 * (1 - levels % 2)
        bounded = torch.tanh(latents + torch.atanh(offset / half_range)) * half_range - offset
        return (bounded + (bounded.round() - bounded).detach()) / (levels // 2)

    def tokens(self, latents: Tensor) -> Tensor:
        """Latents [B, t, h, w, C] → ids [B, t, h, w] int32, by the project's quantizer."""
        return self.encoder.quantizer.encode(latents.movedim(-1, 1))  # type: ignore[no-any-return, operator]

    def fold(self) -> None:
        """Work the bands' scales into the convolutions and set them to one."""
        self._rescale(torch.ones_like(self.scale))

    @torch.no_grad()
    def _rescale(self, scale: Tensor) -> None:
        """Other scales, and convolutions that make up for it."""
        ratio = scale / self.scale
        first, last = self.encoder.encoder.conv_in.conv_s, self.decoder.decoder.conv_out.conv_t
        first.weight.mul_(ratio[None, :, None, None, None])
        last.weight.div_(ratio[:, None, None, None, None])
        last.bias.div_(ratio)
        self.scale.copy_(scale)

    def _to_bands(self, video: Tensor, scale: Tensor) -> Tensor:
        """[B, 1 + p k, p H, p W, 3] → [B, 1 + k, H, W, p^3 3] over their scale."""
        p = self.architecture.patch_size
        video = torch.cat([video[:, :1].expand(-1, p - 1, -1, -1, -1), video], dim=1)
        b, t, h, w, c = video.shape
        cells = video.reshape(b, t // p, p, h // p, p, w // p, p, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        pixels = cells.reshape(b, t // p, h // p, w // p, -1)  # [.., p p p c]
        return F.linear(pixels, self._matrix() / scale[:, None])

    def _to_video(self, bands: Tensor) -> Tensor:
        p = self.architecture.patch_size
        b, t, h, w, _ = bands.shape
        pixels = F.linear(bands, p**3 * self._matrix().T)
        cells = pixels.reshape(b, t, h, w, p, p, p, COLOURS).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return cells.reshape(b, t * p, h * p, w * p, COLOURS)[:, p - 1 :]

    def _matrix(self) -> Tensor:
        """The Haar matrix of all three colours at once: [bands c, pixels c]."""
        return torch.kron(self.bands, torch.eye(COLOURS, device=self.bands.device))


def _both(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    return convolution.weight, convolution.bias  # type: ignore[return-value]


def _projection(projection: CosmosConvProjection3d) -> tuple[Tensor, ...]:
    return *_both(projection.conv_s), *_both(projection.conv_t)


def _run_residual(block: CosmosResnetBlock3d, x: Tensor) -> Tensor:
    shortcut = () if isinstance(block.conv_shortcut, nn.Identity) else _both(block.conv_shortcut)
    first, second = _projection(block.conv1), _projection(block.conv2)
    return _run(_residual, x, shortcut, *_both(block.norm1.norm), *first, *_both(block.norm2.norm), *second)


def _end(norm: nn.Module, projection: CosmosConvProjection3d, x: Tensor) -> Tensor:
    return _run(_ending, x, *_both(norm.norm), *_projection(projection))


def _run_attention(attention: CosmosCausalAttention, x: Tensor, temporal: bool) -> Tensor:
    maps = (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    parameters = [tensor for map_ in maps for tensor in _both(map_)]
    return _run(_attention, x, temporal, *_both(attention.norm.norm), *parameters)


def _middle(block: CosmosMidBlock3d, x: Tensor) -> Tensor:
    x = _run_residual(block.resnets[0], x)
    for space, time, resnet in zip(block.attentions, block.temp_attentions, block.resnets[1:], strict=True):
        x = _run_attention(time, _run_attention(space, x, False), True)
        x = _run_residual(resnet, x)
    return x


def _resample(
    block: Callable[..., Tensor], sampler: CosmosDownsample3d | CosmosUpsample3d, x: Tensor
) -> Tensor:
    convolutions = (sampler.conv1, sampler.conv2, sampler.conv3)
    parameters = [() if isinstance(c, nn.Identity) else _both(c) for c in convolutions]
    return _run(block, x, *parameters) if any(parameters) else x


def initialise(tokenizer: TrainableTokenizer) -> None:
    """Variance-keeping weights for scaled bands; residual branches and the last convolution begin small."""
    for name, parameter in tokenizer.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.fill_(0 if name.endswith("bias") else 1)
                continue
            parameter.normal_(std=parameter[0].numel() ** -0.5)
            if "conv2.conv_t" in name or "to_out" in name:
                parameter.mul_(0.3)
            if "conv_out.conv_t" in name and name.startswith("decoder"):
                parameter.mul_(0.1)
            if "encoder.quant_conv" in name:
                parameter.mul_(1.6)
