"""What one request asks of sampling."""

import math
from dataclasses import dataclass

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.errors import InvalidInput

_SEEDS = range(-(2**63), 2**63)


@dataclass(frozen=True)
class SamplingParameters:
    """Seed and shape of the distribution that tokens are drawn from.

    Args:
        seed: any int64; the same seed on the same context and text gives the same tokens.
        temperature: ≥ 0; logits are divided by it. 0 takes the most probable token and ignores top_p.
        top_p: in (0, 1]; tokens are drawn from the smallest set of most probable ones that holds this mass.

    Raises:
        InvalidInput: a value is out of range.
    """

    seed: int
    temperature: float
    top_p: float

    def __post_init__(self) -> None:
        if self.seed not in _SEEDS:
            raise InvalidInput(f"seed {self.seed} does not fit 64 bits")
        if not 0 <= self.temperature < math.inf:
            raise InvalidInput(f"temperature {self.temperature} is not a number from 0 up")
        if not 0 < self.top_p <= 1:
            raise InvalidInput(f"top_p {self.top_p} is not in (0, 1]")

    @classmethod
    def recommended(cls, architecture: AutoregressiveArchitecture, seed: int = 0) -> "SamplingParameters":
        """The values that the model's authors recommend."""
        return cls(seed, architecture.recommended_temperature, architecture.recommended_top_p)
