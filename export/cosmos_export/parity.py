"""How far a runtime's output is from PyTorch's, and whether that is near enough."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.pipeline import Tolerance


@dataclass(frozen=True)
class Agreement:
    """One comparison.

    Args:
        measure: what `error` is: `relative`, `ids differing` or `pixels off by > 1`.
        error: the measured value.
        allowed: the largest acceptable one.
    """

    measure: str
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the runtime is near enough; NaN is not."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.measure} {self.error:.2g} (allowed {self.allowed:.2g})"


def compare(actual: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance) -> Agreement:
    """Compare a runtime's output with PyTorch's.

    The measure follows the type: floats relative to the largest expected value, int32 token ids by
    the share that differs, uint8 pixels by the share that is off by more than one level.

    Raises:
        ValueError: shapes or types differ.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise ValueError(
            f"the runtime returned {actual.dtype} {actual.shape}, PyTorch {expected.dtype} {expected.shape}"
        )
    if expected.dtype == np.int32:
        return Agreement("ids differing", float((actual != expected).mean()), tolerance.differing)
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype == np.uint8:
        return Agreement("pixels off by > 1", float((difference > 1).mean()), tolerance.differing)
    scale = float(np.abs(expected).max())
    return Agreement("relative", float(difference.max()) / scale, tolerance.relative)
