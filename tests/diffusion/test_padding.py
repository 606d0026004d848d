import pytest
import torch

from cosmos_triton.diffusion.padding import pad_by_reflection


def test_five_latent_frames_become_eight_by_reflection() -> None:
    tokens = torch.arange(5).reshape(5, 1, 1)
    assert pad_by_reflection(tokens, 8).flatten().tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.parametrize("frames", [1, 4, 9])
def test_worlds_too_long_or_too_short_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=f"^{frames} latent frames"):
        pad_by_reflection(torch.zeros(frames, 2, 2), 8)
