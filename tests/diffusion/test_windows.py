import pytest
import torch

from cosmos_triton.diffusion.windows import blend_windows, reflect_to_window, window_frames


def test_five_latent_frames_fill_a_window_by_reflection() -> None:
    tokens = torch.arange(5).reshape(5, 1, 1)
    assert reflect_to_window(tokens, 8).flatten().tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.parametrize("frames", [1, 4, 9])
def test_worlds_that_do_not_fit_one_window_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=f"^{frames} latent frames"):
        reflect_to_window(torch.zeros(frames, 2, 2), 8)


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
