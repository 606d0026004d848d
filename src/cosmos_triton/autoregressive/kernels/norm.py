# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""Residual addition and RMS norm in one pass over a row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.autoregressive.kernels.overlap import overlap_options, wait_for_predecessor


@triton.jit
def _add_norm(
    residual_ptr,  # [rows, D]
    first_ptr,  # [rows, D], read where UPDATES > 0
    second_ptr,  # [rows, D], read where UPDATES > 1
    weight_ptr,  # [D]
    sum_ptr,  # [rows, D], written where UPDATES > 0
    out_ptr,  # [rows, D]
    eps,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    UPDATES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * D
    column = tl.arange(0, BLOCK)
    inside = column < D
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    wait_for_predecessor(OVERLAP)
    x = tl.load(residual_ptr + row + column, mask=inside, other=0.0)
    if UPDATES > 0:  # the sum is rounded after each update, as in the plain version
        x = (x.to(tl.float32) + tl.load(first_ptr + row + column, mask=inside, other=0.0)).to(x.dtype)
    if UPDATES > 1:
        x = (x.to(tl.float32) + tl.load(second_ptr + row + column, mask=inside, other=0.0)).to(x.dtype)
    if UPDATES > 0:
        tl.store(sum_ptr + row + column, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / D + eps)
    normed = (wide * scale).to(x.dtype).to(tl.float32) * weight
    tl.store(out_ptr + row + column, normed.to(x.dtype), mask=inside)


def add_norm(
    residual: Tensor, updates: tuple[Tensor, ...], weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `Operations.add_norm`; at most two updates."""
    width = residual.shape[-1]
    first = updates[0] if updates else residual
    second = updates[1] if len(updates) > 1 else residual
    summed = torch.empty_like(residual) if updates else residual
    out = torch.empty_like(residual)
    block = triton.next_power_of_2(width)
    _add_norm[(residual.numel() // width,)](
        residual,
        first,
        second,
        weight,
        summed,
        out,
        eps,
        D=width,
        BLOCK=block,
        UPDATES=len(updates),
        num_warps=min(16, max(1, block // 256)),
        **overlap_options(residual),
    )
    return summed, out
