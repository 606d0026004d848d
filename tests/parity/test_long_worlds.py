import pytest
import torch

from support.long_worlds import blend_windows, window_frames


def test_long_worlds_take_several_windows() -> None:
    assert window_frames(12, 8, 2) == [list(range(8)), [6, 7, 8, 9, 10, 11, 10, 9]]
    with pytest.raises(ValueError, match="an overlap of 8"):
        window_frames(12, 8, 8)


def test_blending_fades_linearly() -> None:
    zeros, ones = torch.zeros(1, 1, 5, 1, 1), torch.ones(1, 1, 5, 1, 1)
    assert blend_windows([zeros, ones], 3).flatten().tolist() == [0, 0, 0, 0.5, 1, 1, 1]
    assert blend_windows([zeros, ones], 0).flatten().tolist() == [0] * 5 + [1] * 5
    with pytest.raises(ValueError, match="cannot overlap by 3"):
        blend_windows([zeros, ones, zeros], 3)
