"""The autoregressive transformer over video tokens (4B, 12B) and its Video2World form (5B, 13B).

One forward serves a chunk of a prefix (B = 1, L long), one-by-one decoding (L = 1) and the verification of
a window of draft tokens (L = window): every token brings its position and its sequence's cache slot.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive import plain
from cosmos_triton.autoregressive.kv_cache import KVCache, LayerCache
from cosmos_triton.autoregressive.operations import Operations
from cosmos_triton.autoregressive.positions import absolute_positions, rotary_angles
from cosmos_triton.checkpoints import autoregressive_shapes, describe_differences, placed, release
from cosmos_triton.errors import CheckpointError

_QK_NORM_EPS = 1e-5  # the published attention's own default, whatever the network's eps
_STACKED = {"wqkv": ("wq", "wk", "wv"), "wkv": ("wk", "wv"), "w13": ("w1", "w3")}


class SelfAttention(nn.Module):
    """Causal grouped-query attention with normalised, rotated queries and keys."""

    def __init__(self, architecture: AutoregressiveArchitecture, operations: Operations) -> None:
        super().__init__()
        a = architecture
        self.operations = operations
        self.wqkv = _parameter((a.heads + 2 * a.kv_heads) * a.head_dim, a.dim)
        self.wo = _parameter(a.dim, a.heads * a.head_dim)
        self.q_norm = _parameter(a.head_dim)
        self.k_norm = _parameter(a.head_dim)

    def forward(
        self, x: Tensor, positions: Tensor, slots: Tensor, rotary: Tensor, cache: LayerCache
    ) -> Tensor:
        """[B, L, dim] → [B, L, dim]; adds the tokens' keys and values to the cache."""
        qkv = self.operations.linear(x, self.wqkv)
        query = self.operations.norm_rotate_store(
            qkv, self.q_norm, self.k_norm, _QK_NORM_EPS, rotary, positions, slots, cache.keys, cache.values
        )
        seen = self.operations.attend(query, cache.keys, cache.values, positions, slots)
        return self.operations.linear(seen, self.wo)


class CrossAttention(nn.Module):
    """Attention over the text, whose keys and values are computed once per sequence."""

    def __init__(self, architecture: AutoregressiveArchitecture, operations: Operations) -> None:
        super().__init__()
        a = architecture
        assert a.text_dim is not None
        self.operations = operations
        self.wq = _parameter(a.heads * a.head_dim, a.dim)
        self.wkv = _parameter(2 * a.kv_heads * a.head_dim, a.text_dim)
        self.wo = _parameter(a.dim, a.heads * a.head_dim)
        self.q_norm = _parameter(a.head_dim)
        self.k_norm = _parameter(a.head_dim)

    def store_text(self, text: Tensor, slot: int, cache: LayerCache) -> None:
        """Put the keys and values of text embeddings [rows, text_dim] into the cache.

        Zero rows (padding after the prompt) stay: the models were trained with them in the softmax.
        """
        assert cache.text_keys is not None
        assert cache.text_values is not None
        width = self.k_norm.shape[0]
        kv = plain.linear(text, self.wkv).view(len(text), 2, -1, width)  # [rows, 2, kv_heads, D]
        cache.text_keys[slot] = plain.rms_norm(kv[:, 0], self.k_norm, _QK_NORM_EPS).transpose(0, 1)
        cache.text_values[slot] = kv[:, 1].transpose(0, 1)

    def forward(self, x: Tensor, last: Tensor, slots: Tensor, cache: LayerCache) -> Tensor:
        """[B, L, dim] → [B, L, dim]: tokens see text rows up to `last` [B, L], unrotated."""
        assert cache.text_keys is not None
        assert cache.text_values is not None
        query = self.operations.linear(x, self.wq).view(*x.shape[:2], -1, self.q_norm.shape[0])
        _, query = self.operations.add_norm(query, (), self.q_norm, _QK_NORM_EPS)
        seen = self.operations.attend(query, cache.text_keys, cache.text_values, last, slots)
        return self.operations.linear(seen, self.wo)


class FeedForward(nn.Module):
    """W2 (silu(W1 x) * W3 x)."""

    def __init__(self, architecture: AutoregressiveArchitecture, operations: Operations) -> None:
        super().__init__()
        self.operations = operations
        self.w13 = _parameter(2 * architecture.ffn_dim, architecture.dim)
        self.w2 = _parameter(architecture.dim, architecture.ffn_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, dim] → [B, L, dim]."""
        return self.operations.linear(self.operations.gated_linear(x, self.w13), self.w2)


class Layer(nn.Module):
    """Self-attention, cross-attention in Video2World models, feed-forward; each behind a norm.

    A layer returns the residual and the update that the next norm adds to it.
    """

    def __init__(self, architecture: AutoregressiveArchitecture, operations: Operations) -> None:
        super().__init__()
        a = architecture
        self.operations = operations
        self.eps = a.norm_eps
        self.attention_norm = _parameter(a.dim)
        self.attention = SelfAttention(a, operations)
        self.cross_attention_norm = _parameter(a.dim) if a.is_video2world else None
        self.cross_attention = CrossAttention(a, operations) if a.is_video2world else None
        self.ffn_norm = _parameter(a.dim)
        self.feed_forward = FeedForward(a, operations)

    def forward(
        self,
        residual: Tensor,
        updates: tuple[Tensor, ...],
        positions: Tensor,
        slots: Tensor,
        rotary: Tensor,
        text_last: Tensor | None,
        cache: LayerCache,
    ) -> tuple[Tensor, Tensor]:
        """residual and each update [B, L, dim] → the same after the layer."""
        add_norm = self.operations.add_norm
        residual, x = add_norm(residual, updates, self.attention_norm, self.eps)
        update = self.attention(x, positions, slots, rotary, cache)
        if self.cross_attention is not None and self.cross_attention_norm is not None:
            residual, x = add_norm(residual, (update,), self.cross_attention_norm, self.eps)
            update = self.cross_attention(x, text_last, slots, cache)
        residual, x = add_norm(residual, (update,), self.ffn_norm, self.eps)
        return residual, self.feed_forward(x)


class AutoregressiveTransformer(nn.Module):
    """Tokens in, logits of their successors out; keys and values go to a `KVCache`.

    Args:
        architecture: dimensions of the checkpoint.
        operations: `plain`, or a faster module of the same functions.
    """

    rotary: Tensor  # [max_sequence, head_dim]: cosines, then sines
    absolute: Tensor | None  # [max_sequence, dim], Video2World only

    def __init__(self, architecture: AutoregressiveArchitecture, operations: Operations = plain) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.operations = operations
        self.embedding = _parameter(a.embedding_rows, a.dim)
        self.layers = nn.ModuleList(Layer(a, operations) for _ in range(a.layers))
        self.norm = _parameter(a.dim)
        self.output = _parameter(a.vocabulary, a.dim)
        self.register_buffer("rotary", None, persistent=False)
        self.register_buffer("absolute", None, persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor, slots: Tensor, cache: KVCache) -> Tensor:
        """The normalised hidden state of each token; `logits` turns it into a distribution.

        Args:
            tokens: [B, L] integers under embedding_rows.
            positions: [B, L] int64, in the sequence. Cache rows below them must be filled.
            slots: [B] int64, the cache slots of the sequences, all different.
            cache: written at `positions`.

        Returns:
            [B, L, dim].
        """
        residual = self.embedding[tokens]
        absolute = () if self.absolute is None else (self.absolute[positions],)
        # Every token sees the whole text. Made once and here, because kernels read it before they wait for
        # their predecessor.
        texts = cache.text_keys
        text_last = None if texts is None else torch.full_like(positions, texts.shape[3] - 1)
        updates: tuple[Tensor, ...] = ()
        for index, layer in enumerate(self.layers):
            residual, update = layer(
                residual, updates + absolute, positions, slots, self.rotary, text_last, cache.layer(index)
            )
            updates = (update,)
        return self.operations.add_norm(residual, updates, self.norm, self.architecture.norm_eps)[1]

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, L, dim] → [B, L, vocabulary] float32: row p is about the token at position p + 1."""
        return self.operations.project(hidden, self.output)

    def store_text(self, text: Tensor, slot: int, cache: KVCache) -> None:
        """Prepare a sequence's text: embeddings [rows, text_dim] → keys and values of every layer."""
        text = text.to(device=self.output.device, dtype=self.output.dtype)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            assert layer.cross_attention is not None
            layer.cross_attention.store_text(text, slot, cache.layer(index))


def build(
    architecture: AutoregressiveArchitecture,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    operations: Operations = plain,
) -> AutoregressiveTransformer:
    """A network with the weights of a checkpoint.

    Args:
        tensors: exactly the published tensors, under canonical names; they may be mapped from a file, and
            are moved to the device one parameter's worth at a time.
        dtype: of all parameters.
        operations: for the device where the network is to run.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape; all are listed.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = describe_differences(autoregressive_shapes(architecture), found)
    if problems:
        raise CheckpointError(f"the {architecture.name} checkpoint does not fit the network: {problems}")
    device = torch.device(device)
    with torch.device("meta"):
        network = AutoregressiveTransformer(architecture, operations)
    stacked = {
        name: _stacked([tensors[part] for part in parts], dtype, device)
        for name, parts in _sources(network).items()
    }
    network.load_state_dict(stacked, assign=True)
    angles = rotary_angles(architecture)
    network.rotary = torch.cat([angles.cos(), angles.sin()], dim=1).to(device=device, dtype=dtype)
    if architecture.is_video2world:
        network.absolute = absolute_positions(architecture).to(device=device, dtype=dtype)
    return network.eval().requires_grad_(False)


def _stacked(parts: list[Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights one above the other: one matrix product instead of several."""
    if len(parts) == 1:
        whole = placed(parts[0], dtype, device)
    else:  # copied into the whole one by one: parts on the device would stay with the allocator
        rows = [len(part) for part in parts]
        whole = torch.empty(sum(rows), *parts[0].shape[1:], dtype=dtype, device=device)
        for target, part in zip(torch.split(whole, rows), parts, strict=True):
            target.copy_(part)
    release(part for part in parts if part.data_ptr() != whole.data_ptr())
    return whole


def _sources(network: AutoregressiveTransformer) -> dict[str, list[str]]:
    """Our name of each parameter → the published names it is made of."""
    renamed = {"embedding": "tok_embeddings"}
    sources = {}
    for name in network.state_dict():
        path, dot, leaf = name.rpartition(".")
        parts = _STACKED.get(leaf, (renamed.get(leaf, leaf),))
        sources[name] = [f"{path}{dot}{part}.weight" for part in parts]
    return sources


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape), requires_grad=False)
