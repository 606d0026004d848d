"""What each stage does, free of Triton: arrays in, a `StageResult` out.

Arrays are numpy's; between the networks of profile `torch` they are PyTorch tensors on the GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """Outputs by tensor name, the stage's section of the report, and whether it closes the report."""

    outputs: Mapping[str, Any]
    section: dict[str, Any] = field(default_factory=dict)
    last: bool = False
