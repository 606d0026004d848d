"""What each stage does, free of Triton: numpy arrays in, a `StageResult` out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class StageResult:
    """Outputs by tensor name, the stage's section of the report, and whether it closes the report."""

    outputs: Mapping[str, NDArray[Any]]
    section: dict[str, Any] = field(default_factory=dict)
    last: bool = False
