# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""Matrix products of a few rows with large weights: as fast as the weights can be read.

At up to 64 rows a product costs what reading its weights costs. The weights are the left operand of the
tensor cores and the rows the right one, padded to 16, 32 or 64; each program reads a
contiguous band of weight rows once, whatever the number of rows it serves.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.autoregressive.kernels.overlap import overlap_options, prefetch, wait_for_predecessor

MAX_ROWS = 64


@triton.jit(do_not_specialize=["rows"])
def _linear(
    x_ptr,  # [rows, K]
    w_ptr,  # [N, K], or [2 N, K] where GATED
    out_ptr,  # [rows, N]
    rows,
    N,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PREFETCHED: tl.constexpr,  # numbers of each weight row to prefetch before the wait for x
    GATED: tl.constexpr,
    EVEN: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_K)
    inside = n < N
    w = w_ptr + n[:, None].to(tl.int64) * K + k[None, :]  # [BLOCK_N, BLOCK_K]
    lines = tl.arange(0, PREFETCHED // 64) * 64
    prefetch(w_ptr + tl.where(inside, n, 0)[:, None].to(tl.int64) * K + lines[None, :], OVERLAP)
    if GATED:
        up = w + N.to(tl.int64) * K
        prefetch(w_ptr + (N + tl.where(inside, n, 0))[:, None].to(tl.int64) * K + lines[None, :], OVERLAP)
    wait_for_predecessor(OVERLAP)
    x = x_ptr + r[None, :] * K + k[:, None]  # [BLOCK_K, ROWS]
    acc = tl.zeros([BLOCK_N, ROWS], dtype=tl.float32)
    acc_up = tl.zeros([BLOCK_N, ROWS], dtype=tl.float32)
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        right = tl.load(x + start, mask=r[None, :] < rows, other=0.0)
        if EVEN:
            left = tl.load(w + start, eviction_policy="evict_first")
        else:
            left = tl.load(w + start, mask=inside[:, None], other=0.0, eviction_policy="evict_first")
        acc = tl.dot(left, right, acc, input_precision="ieee")
        if GATED:
            if EVEN:
                left = tl.load(up + start, eviction_policy="evict_first")
            else:
                left = tl.load(up + start, mask=inside[:, None], other=0.0, eviction_policy="evict_first")
            acc_up = tl.dot(left, right, acc_up, input_precision="ieee")
    if GATED:
        acc = acc / (1.0 + tl.exp(-acc)) * acc_up
    out = out_ptr + r[None, :].to(tl.int64) * N + n[:, None]
    tl.store(out, acc.to(out_ptr.dtype.element_ty), mask=inside[:, None] & (r[None, :] < rows))


def few_rows_linear(
    x: Tensor, weight: Tensor, *, gated: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    """x weightᵀ for up to `MAX_ROWS` rows: [rows, K], [N, K] → [rows, N].

    Args:
        gated: weight is [2 N, K], and the result silu(x W1ᵀ) * (x W3ᵀ) of its halves.
        dtype: of the result; None for that of x.
    """
    rows, inner = x.shape
    outer = weight.shape[0] // (2 if gated else 1)
    out = torch.empty(rows, outer, dtype=dtype or x.dtype, device=x.device)
    padded = max(16, triton.next_power_of_2(rows))
    block_n, block_k, stages, warps, prefetched = tiling(padded, outer, inner, gated)
    _linear[(triton.cdiv(outer, block_n),)](
        x,
        weight,
        out,
        rows,
        outer,
        K=inner,
        ROWS=padded,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        STAGES=stages,
        PREFETCHED=min(prefetched, 1 << inner.bit_length() - 1),
        GATED=gated,
        EVEN=outer % block_n == 0,
        num_warps=warps,
        **overlap_options(x),
    )
    return out


def tiling(rows: int, outer: int, inner: int, gated: bool) -> tuple[int, int, int, int, int]:
    """(BLOCK_N, BLOCK_K, stages, warps, PREFETCHED), by measurement on an H100; bits do not depend on it.

    Of 4B, by size: up to 4096 rows of weights are attention's output (short) and the feed-forward's second
    matrix (long), up to 8192 queries, keys and values, beyond it the logits.
    """
    most = 512
    while inner % most:
        most //= 2
    whole, half, quarter = min(most, 256), min(most, 128), min(most, 64)
    short = inner <= 4096
    if gated:
        return (64, half, 3, 4, 512) if rows > 32 else (64, half, 4, 4, 1024 if rows > 16 else 512)
    if rows > 32:
        return 64, half, 6, 4, 1024
    if rows > 16:
        if outer <= 4096:
            return (32, whole, 6, 4, 1024) if short else (64, half, 8, 4, 1024)
        return 64, half, 6, 4, 1024
    if outer <= 4096:
        return (32, whole, 8, 4, 2048) if short else (32, most, 4, 4, 1024)
    if outer <= 8192:
        return (64, quarter, 12, 4, 1024) if short else (64, half, 6, 4, 1024)
    return 64, half, 8, 4, 1024
