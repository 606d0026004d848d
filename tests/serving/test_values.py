import numpy as np
import pytest

from cosmos_triton.errors import InvalidInput
from cosmos_triton.serving.values import from_bytes, integer, number, to_bytes


def test_absent_tensors_are_none() -> None:
    assert to_bytes({}, "media") is None
    assert integer({}, "seed") is None
    assert number({}, "top_p") is None


def test_single_values() -> None:
    assert to_bytes({"media": from_bytes(b"\x00\xff")}, "media") == b"\x00\xff"
    assert integer({"seed": np.array([-(2**63)])}, "seed") == -(2**63)
    assert number({"top_p": np.array([0.8], dtype=np.float32)}, "top_p") == 0.8


def test_more_than_one_value_is_refused() -> None:
    with pytest.raises(InvalidInput, match="seed must hold exactly one value, not 2"):
        integer({"seed": np.array([1, 2])}, "seed")
