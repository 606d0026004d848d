# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""silu(a) * b of the halves of a row, for prefill; with few rows it is part of the matrix product itself."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.autoregressive.kernels.overlap import overlap_options, wait_for_predecessor

_BLOCK = 1024


@triton.jit
def _gate(x_ptr, out_ptr, D, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < D
    wait_for_predecessor(OVERLAP)
    gate = tl.load(x_ptr + row * 2 * D + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * D + D + column, mask=inside, other=0.0).to(tl.float32)
    out = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * D + column, out.to(out_ptr.dtype.element_ty), mask=inside)


def gate(x: Tensor) -> Tensor:
    """[rows, 2 D] → [rows, D]."""
    rows, width = x.shape
    out = torch.empty(rows, width // 2, dtype=x.dtype, device=x.device)
    _gate[(rows, triton.cdiv(width // 2, _BLOCK))](x, out, width // 2, BLOCK=_BLOCK, **overlap_options(x))
    return out
