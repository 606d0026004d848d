"""Keys and values of every sequence in flight, in buffers that never move."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture


@dataclass(frozen=True)
class LayerCache:
    """One layer's share of a `KVCache`: views, written in place."""

    keys: Tensor  # [slots, kv_heads, max_sequence, head_dim], normalised and rotated
    values: Tensor  # [slots, kv_heads, max_sequence, head_dim]
    text_keys: Tensor | None  # [slots, kv_heads, text_rows, head_dim], normalised
    text_values: Tensor | None


class KVCache:
    """Static memory for `slots` sequences; a slot is one sequence's index in the batch dimension.

    Args:
        architecture: gives layers, kv heads, head width and sequence length.
        slots: sequences that fit.
        text_rows: rows of text embeddings per sequence; ignored by base models.
        dtype, device: of the network.
        memory: [slots * slot_bytes(...)] uint8 to lie in, zeros by the time a network runs: a masked key
            still meets the softmax, and NaN would pass through. None allocates it.
    """

    def __init__(
        self,
        architecture: AutoregressiveArchitecture,
        slots: int,
        *,
        text_rows: int,
        dtype: torch.dtype,
        device: torch.device | str,
        memory: Tensor | None = None,
    ) -> None:
        a = architecture
        if memory is None:
            nbytes = slots * slot_bytes(a, text_rows=text_rows, dtype=dtype)
            memory = torch.zeros(nbytes, dtype=torch.uint8, device=device)
        rows = [a.max_sequence, a.max_sequence, *([text_rows] * 2 if a.is_video2world else [])]
        shapes = [(a.layers, slots, a.kv_heads, count, a.head_dim) for count in rows]
        parts = torch.split(memory.view(dtype), [math.prod(shape) for shape in shapes])
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.keys, self.values = views[:2]
        self.text_keys = views[2] if a.is_video2world else None
        self.text_values = views[3] if a.is_video2world else None

    @property
    def slots(self) -> int:
        """Sequences that fit."""
        return self.keys.shape[1]

    def layer(self, index: int) -> LayerCache:
        """Views of one layer."""
        text_keys, text_values = self.text_keys, self.text_values
        return LayerCache(
            self.keys[index],
            self.values[index],
            None if text_keys is None else text_keys[index],
            None if text_values is None else text_values[index],
        )


def slot_bytes(architecture: AutoregressiveArchitecture, *, text_rows: int, dtype: torch.dtype) -> int:
    """Bytes of cache that one sequence needs: 839 MB for 4B in bfloat16."""
    a = architecture
    rows = a.max_sequence + (text_rows if a.is_video2world else 0)
    return 2 * a.layers * a.kv_heads * rows * a.head_dim * dtype.itemsize
