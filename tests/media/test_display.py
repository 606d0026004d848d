"""What the container of a video says beyond its pixels."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from cosmos_triton.errors import InvalidInput
from cosmos_triton.media import MediaLimits, decode_media
from support.media_files import encode, numbered, with_matrix

# A picture with another colour in each corner.
CORNERS = np.zeros((48, 64, 3), np.uint8)
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:, :32] = (250, 40, 40), (40, 250, 40), (40, 40, 250)

BARS = np.array([(235, 30, 30), (30, 200, 40), (40, 50, 220), (220, 170, 140), (128, 128, 128)], np.uint8)


def near(actual: np.ndarray, expected: np.ndarray, tolerance: float = 12) -> bool:
    return actual.shape == expected.shape and np.abs(actual.astype(int) - expected).mean() < tolerance


def test_a_plain_clip_has_nothing_to_note():
    assert decode_media(encode(numbered(9))).notes == ()


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), CORNERS),
        ((-1, 0, 0, 1), CORNERS[:, ::-1]),
        ((1, 0, 0, -1), CORNERS[::-1]),
        ((-1, 0, 0, -1), CORNERS[::-1, ::-1]),
        ((0, 1, 1, 0), CORNERS.swapaxes(0, 1)),
        ((0, 1, -1, 0), np.rot90(CORNERS, -1)),  # a phone held upright: a quarter turn clockwise
        ((0, -1, 1, 0), np.rot90(CORNERS, 1)),
        ((0, -1, -1, 0), np.rot90(CORNERS.swapaxes(0, 1), 2)),
    ],
)
def test_all_eight_display_matrices(matrix: tuple[int, int, int, int], expected: np.ndarray):
    media = decode_media(with_matrix(encode([CORNERS] * 9), *matrix))
    assert near(media.frames[0], expected)
    assert (media.width, media.height) == (expected.shape[1], expected.shape[0])
    assert bool(media.notes) == (matrix != (1, 0, 0, 1))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(64, 45), (91, 48)), (Fraction(1, 2), (64, 96)), (Fraction(200, 201), (64, 48))],
)
def test_pixels_become_square(aspect: Fraction, size: tuple[int, int]):
    media = decode_media(encode([CORNERS] * 9, aspect=aspect))
    assert (media.width, media.height) == size
    assert any("made square" in note for note in media.notes) == (size != (64, 48))


def test_a_stretch_is_bounded():
    with pytest.raises(InvalidInput, match="the video is 192x48 pixels"):
        decode_media(encode([CORNERS] * 9, aspect=Fraction(3)), limits=MediaLimits(max_video_pixels=9000))


def interlaced() -> bytes:
    """A white bar that moves 4 pixels from field to field, the upper field first."""
    moments = np.zeros((24, 64, 96, 3), np.uint8)
    for index, moment in enumerate(moments):
        moment[:, 4 * index : 4 * index + 12] = 255
    frames = moments[::2].copy()
    frames[:, 1::2] = moments[1::2, 1::2]
    return encode(frames, options={"crf": "4", "flags": "+ildct+ilme", "x264-params": "tff=1"})


def comb(frames: np.ndarray) -> float:
    """How far rows differ from the mean of those around them."""
    grey = frames[..., 1].astype(float)
    return float(np.abs(grey[:, 1:-1] - (grey[:, :-2] + grey[:, 2:]) / 2).mean())


def test_interlaced_frames_have_no_comb():
    data = interlaced()
    with av.open(io.BytesIO(data)) as container:
        woven = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    media = decode_media(data)
    assert media.frames.shape == (9, 64, 96, 3)
    assert media.notes == ("interlaced frames deinterlaced",)
    assert comb(media.frames) < comb(woven[-9:]) / 5
    assert any(near(media.frames[:, field::2], woven[-9:, field::2], 1) for field in (0, 1))  # one stays


def light(bars: np.ndarray) -> np.ndarray:
    """sRGB codes as light of BT.2020 (ITU-R BT.2087), 1.0 is white."""
    code = bars / 255
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]).T


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, white at 203 cd/m²."""
    power = (light * 203 / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, white at 75 % (26.5 % of scene light)."""
    scene = light * 0.26496
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm)


def hdr_clip(signal: np.ndarray, transfer: int) -> bytes:
    """Bars [n, 3] of codes in [0, 1], 16 pixels each."""
    frame = np.repeat(np.round(signal * 65535).astype(np.uint16)[None], 32, axis=0).repeat(16, axis=1)
    options = {"crf": "4", "x265-params": "log-level=none"}
    return encode([frame] * 9, codec="libx265", pix_fmt="gbrp10le", options=options, colour=(9, transfer))


def middles(frame: np.ndarray) -> np.ndarray:
    return frame[16, 8::16].astype(int)


@pytest.mark.parametrize(("curve", "transfer", "name"), [(pq, 16, "PQ"), (hlg, 18, "HLG")])
def test_hdr_bars_are_those_of_sdr(curve, transfer: int, name: str):
    media = decode_media(hdr_clip(curve(light(BARS)), transfer))
    assert np.abs(middles(media.frames[0]) - BARS).max() <= 6
    assert media.notes == (f"HDR ({name}, BT.2020) colours tone-mapped to sRGB",)


def test_highlights_give_way_and_keep_their_order():
    highlights = np.array([[1.0] * 3, [2.0] * 3, [4.9] * 3])  # white, 406 and 995 cd/m²
    frame = decode_media(hdr_clip(pq(np.concatenate([light(BARS), highlights])), 16)).frames[0]
    bars = middles(frame)
    assert np.abs(bars[:5] - BARS).max() <= 25
    assert 215 < bars[5, 0] < bars[6, 0] < bars[7, 0] <= 255


def test_wide_gamut_without_hdr():
    linear = light(BARS)
    code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    media = decode_media(hdr_clip(code, 14))
    assert np.abs(middles(media.frames[0]) - BARS).max() <= 6
    assert media.notes == ("BT.2020 colours converted to sRGB",)


def test_transparency_is_shown_over_black():
    picture = np.dstack([CORNERS, np.full((48, 64), 255, np.uint8)])
    picture[24:, :, 3] = 0
    media = decode_media(encode([picture] * 9, codec="png", pix_fmt="rgba", container="mov", options={}))
    assert np.array_equal(media.frames[0, :24], CORNERS[:24])
    assert not media.frames[:, 24:].any()
    assert media.notes == ("transparent parts shown over black",)
