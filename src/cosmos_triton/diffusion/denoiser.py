"""The diffusion decoder's network arranged for a GPU: the same weights, the same function, less work.

`transformer` states the network; this module evaluates it for many steps of one video.

- What does not change from step to step is computed once: token channels and the text's keys and
  values per video, the modulation vectors per noise level (the schedule is fixed, so all of them at
  load; their weights never go to the device).
- Cross-attention over the zero text of the unconditional row is exactly zero, and left out.
- Both rows of guidance pass through a block before the next block, so that streamed weights are
  copied once for both.
- What lies between matrix products and attention is written as three functions that `torch.compile`
  turns into one kernel each; all blocks share them, so there is little to compile.
- What follows attention concerns each row of a sequence alone. It runs over `chunks` of the rows, so
  that the feed-forward's hidden layer is never there whole. The arithmetic is the same; the library
  may choose another kernel for another number of rows, and with it another rounding.

Memory. One sequence of the 7B network, [L, dim] = [20480, 4096] bfloat16, is u = 0.168 GB; the hidden
layer is 4 u. Beside the weights (13.2 GB) and the text's keys and values (0.23 GB) a block holds, counted
by hand, both rows of guidance included:

    queries, keys, values     2 u + 5 u              1.2 GB
    self-attention            2 u + 4 u              1.0 GB
    cross-attention           3 u + 3 u              1.0 GB
    feed-forward              4 u + 6 u / chunks     1.7 GB in one chunk, 1.2 in two, 0.9 in four

On an H100 two chunks and four have the same peak, 0.5 GB below that of one; four take 1 % longer.

`fp8` runs the large linear layers of all but the first and the last block in float8
(e4m3), with one scale a row for activations and one a row for weights. It is not the published
arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cosmos_triton.architectures import DiffusionDecoderArchitecture
from cosmos_triton.checkpoints import describe_differences, diffusion_decoder_shapes, release
from cosmos_triton.errors import CheckpointError
from cosmos_triton.residency import BlockStream, Pack, Residency, empty_cache

_EPS = 1e-6  # of every norm in the network
_PATCH = 2  # latent rows and columns of one patch
_ROPE_THETA = 10000.0
_ROPE_SCALE = (1.0, 1.5, 1.5)  # time, height, width
_FREQUENCY_PERIOD = 10000.0
_FP8 = torch.float8_e4m3fn
_FP8_MAX = 448.0
_FP8_EXEMPT = 1  # blocks at either end that stay in full precision


class Linear(NamedTuple):
    """The weight of a linear layer, [out, in]; in float8 with a float32 scale for each row, [out]."""

    weight: Tensor
    scale: Tensor | None


class Block(NamedTuple):
    """Weights of one transformer block, less those that act before the first step."""

    qkv: Linear  # [3 D, D]
    out: Linear  # [D, D]
    cross_query: Linear
    cross_out: Linear
    up: Linear  # [4 D, D]
    down: Linear
    norms: Tensor  # [3, head_dim]: of queries, keys, cross-attention queries


class BlockSource(Protocol):
    """Hands out the blocks' weights in order, again and again."""

    def present(self) -> AbstractContextManager[None]:
        """A block of code in which they can be taken."""

    def take(self, index: int) -> Block:
        """The weights of block `index`."""

    def give_back(self) -> None:
        """The block taken last is done with."""


class TextContext(NamedTuple):
    """Keys and values of one block's cross-attention: [1, N, S, head_dim] each."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What one video's steps have in common."""

    channels: tuple[Tensor, Tensor]  # [D + 1, T, H, W] of the conditional and the unconditional row
    text: list[TextContext]  # one a block
    rotary: Tensor  # [2, L, head_dim / 2] float32: cosines, sines


class Denoiser:
    """The network on one device.

    Args:
        architecture: what the tensors are of.
        tensors: `net.*` under published names, without buffers; they may be mapped from a file.
        device: where it runs.
        dtype: of weights and activations: bfloat16 on a GPU.
        fp8: compute the large products of all but the first and the last block in float8.
        residency: whether the blocks stay on the device, or stream from pinned host memory.
        compiled: fuse what lies between matrix products with torch.compile.
        chunks: of the rows in what follows attention; more take less memory.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """

    def __init__(
        self,
        architecture: DiffusionDecoderArchitecture,
        tensors: Mapping[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        fp8: bool = False,
        residency: Residency = Residency.RESIDENT,
        compiled: bool = False,
        chunks: int = 1,
    ) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        problems = describe_differences(diffusion_decoder_shapes(architecture), found)
        if problems:
            raise CheckpointError(f"the {architecture.name} diffusion decoder does not fit: {problems}")
        self.architecture = architecture
        self.device = device
        self.dtype = dtype
        self.precision = "fp8" if fp8 else {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
        self._tensors = tensors
        self._embedding = self._placed("net.token_embedder.weight")  # [V, D]
        self._patch = self._placed("net.x_embedder.proj.1.weight")  # [dim, channels 2 2]
        self._head = self._placed("net.final_layer.linear.weight")  # [2 2 16, dim]
        self._blocks = self._block_source(fp8, residency)
        self._text = Pack.of(self._text_weights())
        self._modulations: dict[float, Tensor] = {}
        self._pieces = _Pieces(compiled, chunks)

    def prepare(self, timesteps: Sequence[float]) -> None:
        """Compute the modulation vectors of these noise levels (c_noise), so that no step has to.

        Their weights, 0.7 GB of the 7B network, are brought to the device here and dropped.
        """
        missing = [timestep for timestep in timesteps if timestep not in self._modulations]
        if missing:
            self._modulations.update(zip(missing, self._modulation_vectors(missing), strict=True))
            release(self._tensors.values())  # the file's pages; what is still needed has been copied

    def present(self) -> AbstractContextManager[None]:
        """A block of code in which the network can run."""
        return self._blocks.present()

    def for_video(self, tokens: Tensor, text: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """What `denoise` asks at every step of one video. Arguments as of `condition`; inside `present()`."""
        conditioning = self.condition(tokens, text)
        return lambda latents, timestep: self(latents, float(timestep), conditioning)

    def condition(self, tokens: Tensor, text: Tensor) -> Conditioning:
        """Everything that depends on the video and not on the step.

        Args:
            tokens: [T, h, w] integer ids.
            text: [S, C] text embeddings.
        """
        frames, rows, columns = tokens.shape
        head_dim = self.architecture.dim // self.architecture.heads
        with torch.no_grad():
            tokens, text = tokens.to(self.device), text.to(self.device, self.dtype)
            channels = (self._token_channels(tokens), self._token_channels(torch.zeros_like(tokens)))
            weights = self._text.views(self._text.buffer.to(self.device, non_blocking=True))
            contexts = [self._text_context(text, weights, index) for index in range(self.architecture.layers)]
            del weights
            empty_cache(self.device)  # of half a gigabyte that only the text needed
            rotary = rotary_table((frames, rows, columns), head_dim).to(self.device)
        return Conditioning(channels, contexts, rotary)

    def __call__(self, latents: Tensor, timestep: float, conditioning: Conditioning) -> Tensor:
        """Both rows of guidance. Runs inside `present()`.

        Args:
            latents: [16, T, H, W], already scaled by c_in.
            timestep: c_noise = ln(sigma) / 4.
            conditioning: of the video.

        Returns:
            [2, 16, T, H, W] float32: the conditional and the unconditional prediction.
        """
        self.prepare([timestep])
        modulation = self._modulations[timestep]
        with torch.no_grad():
            sample = latents.to(self.device, self.dtype)
            rows = [
                F.linear(patchify(torch.cat([sample, channels])), self._patch)  # [L, dim]
                for channels in conditioning.channels
            ]
            for index in range(self.architecture.layers):
                block, vectors = self._blocks.take(index), modulation[9 * index : 9 * index + 9]
                for row, text in enumerate((conditioning.text[index], None)):
                    rows[row] = self._pieces.block(rows[row], block, vectors, conditioning.rotary, text)
                self._blocks.give_back()
            shift, scale = modulation[-2:]
            predictions = [F.linear(_modulated(row, shift, scale), self._head) for row in rows]
            return torch.stack([unpatchify(row, latents.shape).float() for row in predictions])

    def _placed(self, name: str) -> Tensor:
        return self._tensors[name].to(self.device, self.dtype)

    def _token_channels(self, tokens: Tensor) -> Tensor:
        """[T, h, w] ids → [D + 1, T, 2 h, 2 w]: embedded and resized bilinearly, then the padding mask."""
        planes = self._embedding[tokens].permute(0, 3, 1, 2)  # [T, D, h, w]
        resized = F.interpolate(planes, scale_factor=_PATCH, mode="bilinear", align_corners=False)
        return F.pad(resized.transpose(0, 1), (0, 0, 0, 0, 0, 0, 0, 1))  # no pixel is padding: a zero mask

    def _text_weights(self) -> dict[str, Tensor]:
        """What turns a text into keys and values; it waits on the host, for it is needed once a video."""
        return {
            f"{index}.{part}": self._tensors[
                f"net.blocks.block{index}.blocks.1.block.attn.to_{part}.weight"
            ].to(self.dtype)
            for index in range(self.architecture.layers)
            for part in ("k.0", "k.1", "v.0")
        }

    def _text_context(self, text: Tensor, weights: Mapping[str, Tensor], index: int) -> TextContext:
        """Keys and values of block `index`: [S, C] → [1, N, S, head_dim] each."""
        keys, values = (
            F.linear(text, weights[f"{index}.{part}.0"])
            .reshape(len(text), self.architecture.heads, -1)
            .transpose(0, 1)[None]
            for part in ("k", "v")
        )
        return TextContext(rms_norm(keys, weights[f"{index}.k.1"]), values)

    def _modulation_vectors(self, timesteps: Sequence[float]) -> Tensor:
        """Shift, scale and gate of every sub-block, shift and scale of the end: [S, 9 layers + 2, dim]."""
        dim = self.architecture.dim
        with torch.no_grad():
            waves = sinusoid(torch.tensor(timesteps, device=self.device), dim).to(self.dtype)  # [S, dim]
            hidden = F.silu(F.linear(waves, self._placed("net.t_embedder.1.linear_1.weight")))
            shared = F.linear(hidden, self._placed("net.t_embedder.1.linear_2.weight"))  # [S, 3 dim]
            embedded = F.silu(rms_norm(waves, self._placed("net.affline_norm.weight")))

            def vectors(name: str) -> Tensor:
                down, up = (self._placed(f"{name}.adaLN_modulation.{part}.weight") for part in (1, 2))
                own = F.linear(F.linear(embedded, down), up)
                return (own + shared[:, : own.shape[1]]).reshape(len(own), -1, dim)

            parts = [
                vectors(f"net.blocks.block{index}.blocks.{part}")
                for index in range(self.architecture.layers)
                for part in range(3)
            ]
            return torch.cat([*parts, vectors("net.final_layer")], dim=1)

    def _block_source(self, fp8: bool, residency: Residency) -> BlockSource:
        layers = self.architecture.layers
        inner = range(_FP8_EXEMPT, layers - _FP8_EXEMPT)
        blocks = (self._block(index, fp8=fp8 and index in inner) for index in range(layers))
        if residency is Residency.OFFLOAD:
            return _StreamedBlocks(BlockStream([Pack.of(_named(block)) for block in blocks], self.device))
        return _ResidentBlocks(list(blocks))

    def _block(self, index: int, *, fp8: bool) -> Block:
        name = f"net.blocks.block{index}.blocks"

        def linear(*parts: str) -> Linear:
            weight = torch.cat([self._placed(f"{name}.{part}.weight") for part in parts])
            return quantised(weight) if fp8 else Linear(weight, None)

        return Block(
            qkv=linear(*(f"0.block.attn.to_{part}.0" for part in "qkv")),
            out=linear("0.block.attn.to_out.0"),
            cross_query=linear("1.block.attn.to_q.0"),
            cross_out=linear("1.block.attn.to_out.0"),
            up=linear("2.block.layer1"),
            down=linear("2.block.layer2"),
            norms=torch.stack(
                [
                    self._placed(f"{name}.{part}.1.weight")
                    for part in ("0.block.attn.to_q", "0.block.attn.to_k", "1.block.attn.to_q")
                ]
            ),
        )


class _ResidentBlocks:
    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def present(self) -> AbstractContextManager[None]:
        return nullcontext()

    def take(self, index: int) -> Block:
        return self._blocks[index]

    def give_back(self) -> None:
        """They stay."""


class _StreamedBlocks:
    def __init__(self, stream: BlockStream) -> None:
        self._stream = stream
        self.present, self.give_back = stream.present, stream.give_back

    def take(self, index: int) -> Block:
        return _from_named(self._stream.take(index))


def _named(block: Block) -> dict[str, Tensor]:
    named = {"norms": block.norms}
    for field, value in zip(Block._fields, block, strict=True):
        if isinstance(value, Linear):
            named[f"{field}.weight"] = value.weight
            if value.scale is not None:
                named[f"{field}.scale"] = value.scale
    return named


def _from_named(named: Mapping[str, Tensor]) -> Block:
    linears = {
        field: Linear(named[f"{field}.weight"], named.get(f"{field}.scale"))
        for field in Block._fields
        if field != "norms"
    }
    return Block(**linears, norms=named["norms"])


class _Pieces:
    """One block, cut where torch.compile has nothing to win: at its two attentions."""

    def __init__(self, compiled: bool, chunks: int) -> None:
        def prepared(function: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compile(function, dynamic=False, fullgraph=True) if compiled else function

        self._enter = prepared(_enter_attention)
        self._cross = prepared(_enter_cross_attention)
        self._leave = prepared(_leave_block)
        self._chunks = chunks

    def block(
        self, x: Tensor, block: Block, vectors: Tensor, rotary: Tensor, text: TextContext | None
    ) -> Tensor:
        """[L, dim] → [L, dim]; `x` may be written over. Without `text` there is no cross-attention."""
        # Queries, keys and values have no name here: they are half a gigabyte that the feed-forward can use.
        attended = attention(*self._enter(x, vectors[0], vectors[1], block.qkv, block.norms, rotary))
        gate, out = vectors[2], block.out
        if text is not None:
            x, query = self._cross(
                x, attended, gate, out, vectors[3], vectors[4], block.cross_query, block.norms
            )
            attended, gate, out = attention(query, *text), vectors[5], block.cross_out
            del query
        for rows, seen in zip(x.chunk(self._chunks), attended.chunk(self._chunks), strict=True):
            self._leave(rows, seen, gate, out, vectors[6], vectors[7], vectors[8], block.up, block.down)
        return x


def _enter_attention(
    x: Tensor, shift: Tensor, scale: Tensor, qkv: Linear, norms: Tensor, rotary: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[L, dim] → queries, keys (normalised, rotated) and values, [1, N, L, head_dim] each."""
    modulated = _modulated(x, shift, scale)

    def heads(part: Linear) -> Tensor:
        return linear(modulated, part).reshape(len(x), -1, norms.shape[1])  # [L, N, head_dim]

    # Three products: as a part of one product's result, the values would keep all of it alive.
    queries, keys, values = thirds(qkv)
    parts = (
        rotate(rms_norm(heads(queries), norms[0]), rotary),
        rotate(rms_norm(heads(keys), norms[1]), rotary),
        heads(values),
    )
    query, key, value = (part.transpose(0, 1)[None] for part in parts)
    return query, key, value


def _enter_cross_attention(
    x: Tensor,
    attended: Tensor,
    gate: Tensor,
    out: Linear,
    shift: Tensor,
    scale: Tensor,
    query: Linear,
    norms: Tensor,
) -> tuple[Tensor, Tensor]:
    """The residual after self-attention [L, dim], and cross-attention's queries [1, N, L, head_dim]."""
    x = x + gate * linear(attended, out)
    heads = linear(_modulated(x, shift, scale), query).reshape(len(x), -1, norms.shape[1])
    return x, rms_norm(heads, norms[2]).transpose(0, 1)[None]


def _leave_block(
    x: Tensor,
    attended: Tensor,
    attention_gate: Tensor,
    out: Linear,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    up: Linear,
    down: Linear,
) -> None:
    """Adds to `x` [L, dim] what an attention, and then the feed-forward, make of it."""
    after = x + attention_gate * linear(attended, out)
    hidden = F.gelu(linear(_modulated(after, shift, scale), up))
    x.copy_(after + gate * linear(hidden, down))


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Unmasked softmax attention: [1, N, L, head_dim], [1, N, S, head_dim] twice → [L, N head_dim]."""
    if query.is_cuda:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            attended = F.scaled_dot_product_attention(query, key, value)
    else:
        attended = F.scaled_dot_product_attention(query, key, value)
    return attended[0].transpose(0, 1).flatten(1)


def linear(x: Tensor, layer: Linear) -> Tensor:
    """[L, in] → [L, out]."""
    if layer.scale is None:
        return F.linear(x, layer.weight)
    rows = quantised(x)
    assert rows.scale is not None
    if not x.is_cuda:  # the definition; the CPU has no kernel for it
        product = (rows.weight.float() @ layer.weight.float().T) * rows.scale[:, None] * layer.scale
        return product.to(x.dtype)
    return torch._scaled_mm(
        rows.weight,
        layer.weight.T,
        scale_a=rows.scale[:, None],
        scale_b=layer.scale[None],
        out_dtype=x.dtype,
        use_fast_accum=True,
    )


def thirds(layer: Linear) -> list[Linear]:
    """[3 D, in] → three layers [D, in], over the same memory."""
    scales = (None,) * 3 if layer.scale is None else layer.scale.chunk(3)
    return [Linear(weight, scale) for weight, scale in zip(layer.weight.chunk(3), scales, strict=True)]


def quantised(rows: Tensor) -> Linear:
    """[R, C] → float8 e4m3 of the same shape, each row scaled so that its largest entry is 448."""
    scale = rows.abs().amax(dim=1).float().clamp(min=1e-12) / _FP8_MAX
    return Linear((rows.float() / scale[:, None]).clamp(-_FP8_MAX, _FP8_MAX).to(_FP8), scale)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimension in float32, rounded, times weight."""
    normed = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + _EPS)
    return normed.to(weight.dtype) * weight


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn channel pairs (c, c + half) of [L, N, head_dim] by the angles of [2, L, half]; in float32."""
    cosines, sines = rotary[:, :, None]  # [L, 1, half] each
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return turned.to(x.dtype)


def rotary_table(grid: tuple[int, int, int], head_dim: int) -> Tensor:
    """Cosines and sines of every position of a (T, rows, columns) grid: [2, T rows columns, head_dim / 2].

    Channels go to time, height and width in turn; the spatial axes turn slower by their scale (NTK).
    """
    spatial = head_dim // 6 * 2
    widths = (head_dim - 2 * spatial, spatial, spatial)
    angles = [
        torch.arange(size, dtype=torch.float32)[:, None] * _frequencies(width, scale)
        for size, width, scale in zip(grid, widths, _ROPE_SCALE, strict=True)
    ]
    time, height, width = grid
    table = torch.cat(
        [
            angles[0][:, None, None].expand(-1, height, width, -1),
            angles[1][None, :, None].expand(time, -1, width, -1),
            angles[2][None, None].expand(time, height, -1, -1),
        ],
        dim=-1,
    ).flatten(0, 2)
    return torch.stack([table.cos(), table.sin()])


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """[S] → [S, width] float32: cosines, then sines, of frequencies from 1 down to 1/10000."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * _FREQUENCY_PERIOD**-exponents
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def patchify(channels: Tensor) -> Tensor:
    """[C, T, H, W] → [T H/2 W/2, C 2 2]."""
    count, frames, height, width = channels.shape
    cells = channels.reshape(count, frames, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    return cells.permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(0, 2)


def unpatchify(rows: Tensor, shape: torch.Size) -> Tensor:
    """[T H/2 W/2, 2 2 C] (channels innermost) → `shape` = [C, T, H, W]."""
    channels, frames, height, width = shape
    cells = rows.reshape(frames, height // _PATCH, width // _PATCH, _PATCH, _PATCH, channels)
    return cells.permute(5, 0, 1, 3, 2, 4).reshape(shape)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift


def _frequencies(width: int, scale: float) -> Tensor:
    theta = _ROPE_THETA * scale ** (width / (width - 2))
    frequencies: Tensor = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    return frequencies
