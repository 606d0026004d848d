"""What a scheduler asks of the device: small frozen values, without torch.

Everything a `Runner` does for a request is one of these, so that a process on another GPU that is sent the
same commands in the same order has the same sequences in the same slots.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.autoregressive.parameters import SamplingParameters


@dataclass(frozen=True, eq=False)
class Start:
    """Give a slot to a new sequence."""

    slot: int
    prefix: NDArray[np.int64]  # [P], P ≥ 1
    text_embeddings: NDArray[np.floating[Any]] | None  # [rows, text_dim]
    parameters: SamplingParameters


@dataclass(frozen=True)
class Prefill:
    """Fill cache rows start..stop-1 of a sequence with its prefix tokens there."""

    slot: int
    start: int
    stop: int


@dataclass(frozen=True)
class Decode:
    """One decode pass over sequences whose prefixes are in the cache but for their last token."""

    slots: tuple[int, ...]
