"""The reference's arithmetic, on numbers small enough to work out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cosmos_triton.errors import InvalidInput
from cosmos_triton.media import context_frames, preprocess, resized_size, to_uint8, unit_to_uint8
from cosmos_triton.media import frames as frames_module


def picture(height: int, width: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_the_right_size_is_only_scaled():
    frames = picture(16, 32)
    out = preprocess(frames, 16, 32)
    assert out.shape == (3, 1, 16, 32)
    assert out.dtype == torch.float32
    assert np.array_equal(out[:, 0].permute(1, 2, 0).numpy(), frames[0].astype(np.float32) / 255 * 2 - 1)


@pytest.mark.parametrize(
    ("source", "target", "size"),
    [
        ((1080, 1920), (640, 1024), (640, 1138)),
        ((1920, 1080), (640, 1024), (1821, 1024)),
        ((480, 640), (640, 1024), (768, 1024)),
        ((281, 640), (640, 1024), (641, 1458)),  # one more than exact arithmetic: ceil of a float
        ((640, 1024), (640, 1024), (640, 1024)),
    ],
)
def test_the_resize_covers_the_target(source, target, size):
    assert resized_size(source, target) == size


def test_the_crop_is_centred():
    frames = np.zeros((1, 16, 48, 3), np.uint8)
    frames[:, :, 8:40] = 255  # the middle 32 columns
    assert (preprocess(frames, 16, 32) == 1).all()


def test_the_resize_is_antialiased():
    frames = np.zeros((1, 64, 128, 3), np.uint8)
    frames[:, :, ::4] = 255  # columns that a plain bilinear resize by 1/4 would miss or hit
    middle = preprocess(frames, 16, 32)[:, :, :, 2:-2]
    assert (middle - (-0.5)).abs().max() < 0.1


@pytest.mark.parametrize("source", [(90, 160), (20, 30), (64, 33), (33, 200)])
def test_bands_give_the_pixels_of_the_whole(source, monkeypatch: pytest.MonkeyPatch):
    frames = picture(*source)
    pixels = torch.tensor(frames).permute(0, 3, 1, 2).float() / 255.0 * 2.0 - 1.0
    size = resized_size(source, (16, 32))
    whole = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    top, left = round((size[0] - 16) / 2), round((size[1] - 32) / 2)
    for band in (1, 7 * 160, 1 << 20):
        monkeypatch.setattr(frames_module, "_BAND_PIXELS", band)
        assert torch.equal(preprocess(frames, 16, 32)[:, 0], whole[0, :, top : top + 16, left : left + 32])


def test_a_strip_is_refused():
    with pytest.raises(InvalidInput, match="3x5000 pixels, too elongated for a 32x16 video"):
        preprocess(np.zeros((1, 5000, 3, 3), np.uint8), 16, 32)


def test_one_frame_becomes_nine():
    out = context_frames(picture(20, 30), 16, 32)
    assert out.shape == (3, 9, 16, 32)
    assert (out == out[:, :1]).all()
    assert out.is_contiguous()


def test_nine_frames_stay_in_order():
    frames = picture(20, 30, 9)
    assert torch.equal(context_frames(frames, 16, 32), preprocess(frames, 16, 32))
    with pytest.raises(ValueError, match="context of 5 frames"):
        context_frames(frames[:5], 16, 32)


def test_bytes_are_truncated_and_clamped():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    video = values.expand(3, 1, 1, 6)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]
    assert unit_to_uint8(torch.full((3, 2, 4, 5), 0.9999)).shape == (2, 4, 5, 3)
    assert unit_to_uint8(torch.full((3, 1, 1, 1), 0.9999)).max() == 254
