"""What the autoregressive transformer asks of its device: six operations over tokens.

`plain` states them in PyTorch and runs anywhere; `fused` has them as kernels for NVIDIA GPUs. Both are
modules that satisfy `Operations`, and a network is built with one of them.
"""

from typing import Protocol

from torch import Tensor


class Operations(Protocol):
    """One implementation of the operations. B sequences, L tokens of each, D head width, S cache rows."""

    def add_norm(
        self, residual: Tensor, updates: tuple[Tensor, ...], weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(residual + updates, its RMS norm times weight): [B, L, dim] each.

        The normalised value is rounded to the residual's type before it meets the weight.
        """

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """x weightᵀ: [B, L, in], [out, in] → [B, L, out]."""

    def gated_linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """silu(x W1ᵀ) * (x W3ᵀ): [B, L, in], [2 * hidden, in] (W1's rows, then W3's) → [B, L, hidden]."""

    def project(self, x: Tensor, weight: Tensor) -> Tensor:
        """x weightᵀ in float32, for logits: [B, L, in], [out, in] → [B, L, out] float32."""

    def norm_rotate_store(
        self,
        qkv: Tensor,
        q_norm: Tensor,
        k_norm: Tensor,
        eps: float,
        rotary: Tensor,
        positions: Tensor,
        slots: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> Tensor:
        """Normalise and rotate queries and keys; write keys and values into the cache at their positions.

        Args:
            qkv: [B, L, (heads + 2 kv_heads) D]: queries, keys, values.
            q_norm, k_norm: [D] weights of the norm over each head.
            rotary: [max_sequence, D]: cosines, then sines, D / 2 each.
            positions: [B, L] int64, rows of `rotary` and of the cache.
            slots: [B] int64.
            keys, values: [slots, kv_heads, S, D] of one layer, written in place.

        Returns:
            [B, L, heads, D] queries.
        """

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, last: Tensor, slots: Tensor) -> Tensor:
        """Grouped-query attention of each token over the first rows of its sequence's cache.

        Query head n reads kv head n // (heads / kv_heads). Scale 1/sqrt(D).

        Args:
            query: [B, L, heads, D].
            keys, values: [slots, kv_heads, S, D].
            last: [B, L] int64, the last row each token sees: its own position.
            slots: [B] int64.

        Returns:
            [B, L, heads * D].
        """
