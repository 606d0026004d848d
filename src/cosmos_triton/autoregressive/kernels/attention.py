# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""Grouped-query attention over the filled part of the cache, split along the sequence.

All query heads that share a kv head, of up to 32 tokens, form one tile, so keys and values are read
once for them. For decoding, programs take `_SPLIT` cache rows each and a second kernel merges what they
found (Flash-Decoding); the splits begin at fixed rows, so that the order of sums does not depend
on the batch. Chunks of a prefix have tiles enough, and go through without a split.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.autoregressive.kernels.overlap import overlap_options, prefetch, wait_for_predecessor

_SPLIT = 576  # cache rows of a program when decoding
_SHORT, _SHORT_SPLIT = 1024, 128  # the same where there are at most so many rows: those of a text
_BLOCK_S = 64  # cache rows of a step; divides every max_sequence
_MOST_M = 128
_FEW_SEQUENCES = 4
_LOG2_E = 1.4426950408889634


@triton.jit
def _scan(
    q,  # [BLOCK_M, D]
    keys_ptr,  # [S, D]
    values_ptr,
    begin,
    end,
    last,  # [BLOCK_M]
    S,
    scale,
    best,  # [BLOCK_M]: greatest score so far, before scaling
    total,  # [BLOCK_M, 16]
    acc,  # [BLOCK_M, D]
    D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    EVEN: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Online softmax over rows begin..end-1; masking changes no bit of a token that sees them all."""
    for start in tl.range(begin, end, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        offset = s[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]  # [BLOCK_S, D]
        if EVEN:
            k = tl.load(keys_ptr + offset)
            v = tl.load(values_ptr + offset)
        else:
            k = tl.load(keys_ptr + offset, mask=s[:, None] < S, other=0.0)
            v = tl.load(values_ptr + offset, mask=s[:, None] < S, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if MASKED:
            scores = tl.where(s[None, :] <= last[:, None], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        level = tl.where(higher == float("-inf"), 0.0, higher)  # rows that see nothing yet
        weights = tl.exp2(tl.fma(scores, scale, -(level * scale)[:, None])).to(v.dtype)
        kept = tl.exp2((best - level) * scale)[:, None]  # exactly 1 where nothing higher came
        # Summed by the tensor cores: a sum over lanes has an order that depends on the tile.
        ones = tl.full([BLOCK_S, 16], 1.0, dtype=v.dtype)
        total = tl.dot(weights, ones, total * kept, input_precision="ieee")
        acc = tl.dot(weights, v, acc * kept, input_precision="ieee")
        best = higher
    return best, total, acc


@triton.jit(do_not_specialize=["L"])  # the last chunk of a prefix has any
def _attend(
    query_ptr,  # [B, L, heads, D]
    keys_ptr,  # [slots, KV, S, D]
    values_ptr,
    last_ptr,  # [B, L] int64
    slots_ptr,  # [B] int64
    out_ptr,  # [B, L, heads, D], or [B, L, heads, splits, D] float32 where there are several
    maxima_ptr,  # [B, L, heads, splits] float32, where there are several
    sums_ptr,
    L,
    S,
    scale,  # 1/sqrt(D) in powers of two: times log2(e)
    KV: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    TOKENS: tl.constexpr,  # tokens of a tile
    BLOCK_M: tl.constexpr,  # TOKENS * GROUP, padded
    BLOCK_S: tl.constexpr,
    SPLIT: tl.constexpr,
    SPLITS: tl.constexpr,
    PREFETCHED: tl.constexpr,  # rows of a split that are asked for before the queries are there
    EVEN: tl.constexpr,  # S is a multiple of BLOCK_S
    OVERLAP: tl.constexpr,
):
    tiles = tl.cdiv(L, TOKENS)
    b = tl.program_id(0) // tiles
    kv = tl.program_id(1)
    split = tl.program_id(2)
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, D)
    token = (tl.program_id(0) % tiles) * TOKENS + m // GROUP
    valid = (m < TOKENS * GROUP) & (token < L)
    row = ((b * L + token) * KV + kv) * GROUP + m % GROUP  # of queries and results
    # Positions and slots were written before the previous kernel was launched: no wait is needed for them.
    last = tl.load(last_ptr + b * L + token, mask=valid, other=-1).to(tl.int32)
    base = (tl.load(slots_ptr + b) * KV + kv) * S * D
    begin = split * SPLIT
    end = tl.max(last, axis=0) + 1
    if SPLITS > 1:
        end = tl.minimum(begin + SPLIT, end)
        if PREFETCHED > 0:
            # The previous kernel may still be writing some of these rows. That is safe: a prefetch brings
            # them into the L2 cache, which all writes go through.
            early = tl.minimum(begin + tl.arange(0, PREFETCHED), tl.maximum(end - 1, 0))
            lines = base + early[:, None] * D + tl.arange(0, D // 64)[None, :] * 64
            if begin < end:
                prefetch(keys_ptr + lines, OVERLAP)
                prefetch(values_ptr + lines, OVERLAP)
    wait_for_predecessor(OVERLAP)
    if begin < end:
        q = tl.load(query_ptr + row[:, None].to(tl.int64) * D + d[None, :], mask=valid[:, None], other=0.0)
        best = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
        total = tl.zeros([BLOCK_M, 16], dtype=tl.float32)  # 16 equal columns
        acc = tl.zeros([BLOCK_M, D], dtype=tl.float32)
        seen_by_all = tl.minimum(tl.min(tl.where(valid, last, end), axis=0) + 1, end)
        middle = begin + tl.maximum(seen_by_all - begin, 0) // BLOCK_S * BLOCK_S
        best, total, acc = _scan(
            q,
            keys_ptr + base,
            values_ptr + base,
            begin,
            middle,
            last,
            S,
            scale,
            best,
            total,
            acc,
            D,
            BLOCK_S,
            EVEN,
            MASKED=False,
        )
        best, total, acc = _scan(
            q,
            keys_ptr + base,
            values_ptr + base,
            middle,
            end,
            last,
            S,
            scale,
            best,
            total,
            acc,
            D,
            BLOCK_S,
            EVEN,
            MASKED=True,
        )
        summed = tl.max(total, axis=1)
        if SPLITS > 1:
            part = row.to(tl.int64) * SPLITS + split
            tl.store(out_ptr + part[:, None] * D + d[None, :], acc, mask=valid[:, None])
            tl.store(maxima_ptr + part, best * scale, mask=valid)
            tl.store(sums_ptr + part, summed, mask=valid)
        else:
            out = acc / summed[:, None]
            offset = row[:, None].to(tl.int64) * D + d[None, :]
            tl.store(out_ptr + offset, out.to(out_ptr.dtype.element_ty), mask=valid[:, None])


@triton.jit
def _merge(
    parts_ptr,  # [B L, heads, splits, D] float32
    maxima_ptr,  # [B L, heads, splits] float32
    sums_ptr,
    last_ptr,  # [B L] int64
    out_ptr,  # [B L, heads, D]
    HEADS: tl.constexpr,
    D: tl.constexpr,
    SPLIT: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One program for each token and head."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, D)
    split = tl.arange(0, BLOCK_SPLITS)
    used = tl.load(last_ptr + row // HEADS) // SPLIT + 1  # needs no wait either
    wait_for_predecessor(OVERLAP)
    maxima = tl.load(maxima_ptr + row * SPLITS + split, mask=split < used, other=float("-inf"))
    sums = tl.load(sums_ptr + row * SPLITS + split, mask=split < used, other=0.0)
    weights = tl.exp2(maxima - tl.max(maxima, axis=0))
    part = parts_ptr + (row * SPLITS + split)[:, None] * D + d[None, :]
    parts = tl.load(part, mask=(split < used)[:, None], other=0.0)
    out = tl.sum(parts * weights[:, None], axis=0) / tl.sum(sums * weights, axis=0)
    tl.store(out_ptr + row * D + d, out.to(out_ptr.dtype.element_ty))


def attend(query: Tensor, keys: Tensor, values: Tensor, last: Tensor, slots: Tensor) -> Tensor:
    """See `Operations.attend`."""
    batch, length, heads, width = query.shape
    _, kv_heads, sequence, _ = keys.shape
    group = heads // kv_heads
    many = length > 64  # a chunk of a prefix
    tokens = min(_MOST_M, triton.next_power_of_2(length * group)) // group or 1
    block_m = max(16, triton.next_power_of_2(tokens * group))
    warps, stages, prefetched = tiling(block_m, batch)
    split = _SPLIT if sequence > _SHORT else _SHORT_SPLIT
    splits = 1 if many else triton.cdiv(sequence, split)
    out = torch.empty_like(query)
    parts = maxima = sums = out
    if splits > 1:
        shape = (batch, length, heads, splits)
        parts = torch.empty(*shape, width, dtype=torch.float32, device=query.device)
        maxima = torch.empty(shape, dtype=torch.float32, device=query.device)
        sums = torch.empty_like(maxima)
    last = last.contiguous()
    _attend[(batch * triton.cdiv(length, tokens), kv_heads, splits)](
        query,
        keys,
        values,
        last,
        slots,
        parts,
        maxima,
        sums,
        length,
        sequence,
        width**-0.5 * _LOG2_E,
        KV=kv_heads,
        GROUP=group,
        D=width,
        TOKENS=tokens,
        BLOCK_M=block_m,
        BLOCK_S=_BLOCK_S,
        SPLIT=split,
        SPLITS=splits,
        PREFETCHED=prefetched if width >= 64 else 0,
        EVEN=sequence % _BLOCK_S == 0,
        num_warps=warps,
        num_stages=stages,
        **overlap_options(query),
    )
    if splits > 1:
        _merge[(batch * length * heads,)](
            parts,
            maxima,
            sums,
            last,
            out,
            HEADS=heads,
            D=width,
            SPLIT=split,
            SPLITS=splits,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
            num_warps=4,
            **overlap_options(query),
        )
    return out.view(batch, length, heads * width)


def tiling(block_m: int, batch: int) -> tuple[int, int, int]:
    """(warps, stages, PREFETCHED), by measurement on an H100; bits do not depend on it."""
    # Eight warps where tiles are large, or too few to fill the chip otherwise.
    if block_m == _MOST_M:
        return 8, 3, 64
    if block_m == 16 and batch <= _FEW_SEQUENCES:
        return 8, 5, 64
    return 4, 2, 0
