# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""Norm and rotation of queries and keys, and the write of keys and values into the cache."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.autoregressive.kernels.overlap import overlap_options, wait_for_predecessor


@triton.jit(do_not_specialize=["length"])  # the last chunk of a prefix has any
def _norm_rotate_store(
    qkv_ptr,  # [rows, (heads + 2 KV) D]
    q_norm_ptr,  # [D]
    k_norm_ptr,  # [D]
    rotary_ptr,  # [max_sequence, D]
    positions_ptr,  # [rows] int64
    slots_ptr,  # [B] int64
    query_ptr,  # [rows, heads, D]
    keys_ptr,  # [slots, KV, S, D]
    values_ptr,
    eps,
    length,  # rows of each sequence
    heads,
    S,
    KV: tl.constexpr,
    D: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One program for KV heads of one row: a group of query heads, the keys, or the values."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    head = tl.arange(0, KV)
    half = tl.arange(0, D // 2)
    groups = heads // KV  # the groups of queries; then come keys and values
    # All but queries, keys and values was written before the previous kernel was launched: no wait for it.
    position = tl.load(positions_ptr + row)
    slot = tl.load(slots_ptr + row // length)
    offset = ((slot * KV + head) * S + position)[:, None] * D + half[None, :]
    norm_ptr = q_norm_ptr if group < groups else k_norm_ptr
    norm_a = tl.load(norm_ptr + half)[None, :]
    norm_b = tl.load(norm_ptr + D // 2 + half)[None, :]
    cos = tl.load(rotary_ptr + position * D + half).to(tl.float32)[None, :]
    sin = tl.load(rotary_ptr + position * D + D // 2 + half).to(tl.float32)[None, :]
    wait_for_predecessor(OVERLAP)
    source = qkv_ptr + (row * (heads + 2 * KV) + group * KV + head)[:, None] * D + half[None, :]
    first = tl.load(source)  # [KV, D / 2]
    second = tl.load(source + D // 2)
    if group == groups + 1:
        tl.store(values_ptr + offset, first)
        tl.store(values_ptr + offset + D // 2, second)
    else:
        kind = first.dtype
        a, b = first.to(tl.float32), second.to(tl.float32)
        scale = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / D + eps)[:, None]
        a = ((a * scale).to(kind) * norm_a).to(kind).to(tl.float32)
        b = ((b * scale).to(kind) * norm_b).to(kind).to(tl.float32)
        turned_a, turned_b = (a * cos - b * sin).to(kind), (b * cos + a * sin).to(kind)
        if group == groups:
            tl.store(keys_ptr + offset, turned_a)
            tl.store(keys_ptr + offset + D // 2, turned_b)
        else:
            target = query_ptr + (row * heads + group * KV + head)[:, None] * D + half[None, :]
            tl.store(target, turned_a)
            tl.store(target + D // 2, turned_b)


def norm_rotate_store(
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
    """See `Operations.norm_rotate_store`."""
    _, kv_heads, sequence, width = keys.shape
    batch, length, total = qkv.shape
    heads = total // width - 2 * kv_heads
    query = torch.empty(batch, length, heads, width, dtype=qkv.dtype, device=qkv.device)
    _norm_rotate_store[(batch * length, heads // kv_heads + 2)](
        qkv,
        q_norm,
        k_norm,
        rotary,
        positions.contiguous(),
        slots,
        query,
        keys,
        values,
        eps,
        length,
        heads,
        sequence,
        KV=kv_heads,
        D=width,
        num_warps=4,
        **overlap_options(qkv),
    )
    return query
