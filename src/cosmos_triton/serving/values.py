"""Single values inside [1]-shaped arrays: BYTES and numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.errors import InvalidInput

Arrays = Mapping[str, NDArray[Any]]


def from_bytes(value: bytes) -> NDArray[np.object_]:
    """A BYTES tensor of shape [1]."""
    return np.array([value], dtype=np.object_)


def to_bytes(inputs: Arrays, name: str) -> bytes | None:
    """The single element of a BYTES tensor, or None where the tensor is absent."""
    array = inputs.get(name)
    return None if array is None else bytes(_single(array, name))


def integer(inputs: Arrays, name: str) -> int | None:
    """The single element of an integer tensor, or None."""
    array = inputs.get(name)
    return None if array is None else int(_single(array, name))


def number(inputs: Arrays, name: str) -> float | None:
    """The single element of a floating tensor, or None.

    FP32 0.8 is read as 0.8, not 0.800000012, so that the report shows what the user typed.
    """
    array = inputs.get(name)
    return None if array is None else float(str(_single(array, name)))


def _single(array: NDArray[Any], name: str) -> Any:
    if array.size != 1:
        raise InvalidInput(f"{name} must hold exactly one value, not {array.size}")
    return array.reshape(-1)[0]
