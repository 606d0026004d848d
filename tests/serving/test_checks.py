import numpy as np
import pytest
import torch

from cosmos_triton.errors import InvalidInput
from cosmos_triton.serving.checks import check_finite, check_picture_size, check_range, check_shape

BOTH = pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["numpy", "torch"])


@BOTH
def test_good_values_pass(kind) -> None:
    check_shape("tokens", kind([[0, 5]]), (1, 2))
    check_range("tokens", kind([0, 5]), 0, 5)
    check_finite("latents", kind([-1.0, 3e38]))


@BOTH
@pytest.mark.parametrize("outside", [-1, 6, 2**31 - 1, -(2**31)])
def test_an_integer_out_of_range_is_named(kind, outside: int) -> None:
    with pytest.raises(InvalidInput, match=rf"tokens holds {outside}, which is not in 0\.\.5"):
        check_range("tokens", kind([0, outside, 3]), 0, 5)


@BOTH
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_not_finite_is_named(kind, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"latents holds {value}, which is not a finite number"):
        check_finite("latents", kind([0.0, float(value), 1.0]))


@BOTH
def test_another_shape_is_named(kind) -> None:
    with pytest.raises(InvalidInput, match=r"tokens has shape \[0\], not \[5, 10, 16\]"):
        check_shape("tokens", kind([]), (5, 10, 16))


@pytest.mark.parametrize(("height", "width"), [(0, 256), (160, 0), (161, 256), (160, 255), (1, 1)])
def test_frames_that_no_video_can_have(height: int, width: int) -> None:
    with pytest.raises(InvalidInput, match=f"frames are {height}x{width} pixels; both must be even"):
        check_picture_size("frames", np.zeros((33, height, width, 3), np.uint8))
