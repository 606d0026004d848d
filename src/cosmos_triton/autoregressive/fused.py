"""The transformer's operations as kernels, for bfloat16 on NVIDIA GPUs. See `Operations`.

Matrix products of up to 64 rows, which decoding is made of, run in our own kernel; those of prefill in
cuBLAS.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cosmos_triton.autoregressive.kernels.attention import attend
from cosmos_triton.autoregressive.kernels.gate import gate
from cosmos_triton.autoregressive.kernels.linear import MAX_ROWS, few_rows_linear
from cosmos_triton.autoregressive.kernels.norm import add_norm
from cosmos_triton.autoregressive.kernels.rotary import norm_rotate_store

__all__ = ["add_norm", "attend", "gated_linear", "linear", "norm_rotate_store", "project"]


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """See `Operations.linear`."""
    rows = x.reshape(-1, x.shape[-1])
    out = few_rows_linear(rows, weight) if len(rows) <= MAX_ROWS else F.linear(rows, weight)
    return out.view(*x.shape[:-1], -1)


def gated_linear(x: Tensor, weight: Tensor) -> Tensor:
    """See `Operations.gated_linear`."""
    rows = x.reshape(-1, x.shape[-1])
    few = len(rows) <= MAX_ROWS
    out = few_rows_linear(rows, weight, gated=True) if few else gate(F.linear(rows, weight))
    return out.view(*x.shape[:-1], -1)


def project(x: Tensor, weight: Tensor) -> Tensor:
    """See `Operations.project`."""
    pieces = [
        few_rows_linear(rows, weight, dtype=torch.float32)
        for rows in torch.split(x.reshape(-1, x.shape[-1]), MAX_ROWS)
    ]
    out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return out.view(*x.shape[:-1], -1)
