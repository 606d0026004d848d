# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""Programmatic dependent launch (Hopper and later): a kernel may start while the one before it ends.

A kernel launched so must wait for its predecessor before it reads what that wrote; until then it may fetch
what was written earlier. Every kernel here waits, on every path, so that kernels take effect in their order.
What they read before they wait (weights, positions, slots, sampling parameters) was written before the first
of them was launched: any kernel without this attribute, such as PyTorch's own, is a barrier.
"""

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # a Triton that names them otherwise; kernels then run one after another
    gdc_launch_dependents = gdc_wait = None


@triton.jit
def wait_for_predecessor(OVERLAP: tl.constexpr):
    """Let the successor start its own fetching, then wait until the predecessor's writes can be read."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def prefetch(pointers, OVERLAP: tl.constexpr):
    """Ask for the 128-byte lines at `pointers` to be brought into the L2 cache."""
    if OVERLAP:
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
            "=r,l",
            [pointers],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


def overlap_options(x: Tensor) -> dict[str, Any]:
    """Keyword arguments of a launch on the device of `x`."""
    return _options(x.device) if x.is_cuda else {"OVERLAP": False}


@lru_cache
def _options(device: torch.device) -> dict[str, Any]:
    supported = gdc_wait is not None and torch.cuda.get_device_capability(device) >= (9, 0)
    return {"OVERLAP": True, "launch_pdl": True} if supported else {"OVERLAP": False}
