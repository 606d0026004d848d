"""Images of every mode and orientation."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from cosmos_triton.errors import ConfigurationError, InvalidInput
from cosmos_triton.media import (
    Deadline,
    MediaLimits,
    check_num_input_frames,
    context_frames,
    decode_media,
    pictures,
)
from support.media_files import save

RED, GREEN, BLUE = (220, 30, 40), (20, 180, 60), (40, 60, 200)


def quarters() -> Image.Image:
    """48x32: top left red, top right green, bottom blue."""
    array = np.zeros((32, 48, 3), np.uint8)
    array[:16, :24], array[:16, 24:], array[16:] = RED, GREEN, BLUE
    return Image.fromarray(array)


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})]
)
def test_the_three_formats(format: str, options: dict[str, object]):
    media = decode_media(save(quarters(), format, **options))
    assert (media.kind, media.num_input_frames, media.source_frames) == ("image", 1, 1)
    assert media.frames.shape == (1, 32, 48, 3)
    assert np.abs(media.frames[0, 4, 4].astype(int) - RED).max() < 12


def test_an_image_for_nine_frames_stays_one():
    media = decode_media(save(quarters(), "PNG"), num_input_frames=9)
    assert (media.kind, media.num_input_frames, len(media.frames)) == ("image", 9, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int):
    stored = quarters()
    if orientation != 1:
        how = {  # what a camera does before it stores the picture
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
        stored = stored.transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    media = decode_media(save(stored, "PNG", exif=exif))
    assert np.array_equal(media.frames[0], np.asarray(quarters()))
    assert bool(media.notes) == (orientation != 1)


def test_cmyk():
    media = decode_media(save(quarters().convert("CMYK"), "JPEG", quality=98))
    assert np.abs(media.frames[0, 4, 4].astype(int) - RED).max() < 12


def test_transparency_is_shown_over_black():
    image = quarters().convert("RGBA")
    alpha = np.full((32, 48), 255, np.uint8)
    alpha[:, 24:] = 128
    alpha[16:] = 0
    image.putalpha(Image.fromarray(alpha))
    pixels = decode_media(save(image, "PNG")).frames[0]
    assert tuple(pixels[4, 4]) == RED
    assert np.abs(pixels[4, 40].astype(int) - np.array(GREEN) * 128 / 255).max() <= 1
    assert not pixels[20:].any()


@pytest.mark.parametrize("mode", ["P", "L", "LA", "1"])
def test_other_modes(mode: str):
    expected = np.asarray(quarters().convert("L" if mode != "P" else "P").convert("RGB"))
    if mode == "1":
        expected = np.asarray(quarters().convert("1").convert("RGB"))
    assert np.array_equal(decode_media(save(quarters().convert(mode), "PNG")).frames[0], expected)


def test_a_palette_with_a_transparent_colour():
    image = quarters().quantize(8)
    image.info["transparency"] = image.getpixel((4, 4))
    pixels = decode_media(save(image, "PNG", transparency=image.getpixel((4, 4)))).frames[0]
    assert not pixels[4, 4].any()
    assert pixels[20, 4].any()


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 48).astype(np.uint16)[None].repeat(32, axis=0)
    pixels = decode_media(save(Image.fromarray(ramp), "PNG")).frames[0]
    assert np.array_equal(pixels[0, :, 0], np.round(ramp[0] / 257).astype(np.uint8))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_animated_image_is_a_video(format: str):
    frames = [Image.new("RGB", (40, 24), (10 * index, 0, 0)) for index in range(12)]
    data = save(frames[0], format, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    media = decode_media(data)
    assert (media.kind, media.num_input_frames, media.source_frames) == ("video", 9, 12)
    assert [int(frame[0, 0, 0]) for frame in media.frames] == [10 * index for index in range(3, 12)]
    assert decode_media(data, num_input_frames=1).frames[0, 0, 0, 0] == 110
    with pytest.raises(InvalidInput, match="more than 11 frames"):
        decode_media(data, limits=MediaLimits(max_frames=11))
    with pytest.raises(InvalidInput, match="more than 1e-09 s"):
        decode_media(data, limits=MediaLimits(max_seconds=1e-9))


def test_an_animated_image_that_is_too_short():
    frames = [Image.new("RGB", (40, 24), (80 * index, 0, 0)) for index in range(3)]
    data = save(frames[0], "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInput, match="animated png has 3 frames, 9 input frames are needed"):
        decode_media(data)


def test_the_default_image_of_an_animation_is_no_frame_of_it():
    frames = [Image.new("RGB", (40, 24), (10 * index, 0, 0)) for index in range(10)]
    options = {"save_all": True, "default_image": True}
    nine = decode_media(save(frames[0], "PNG", append_images=frames[1:], **options))
    assert [int(frame[0, 0, 0]) for frame in nine.frames] == [10 * index for index in range(1, 10)]
    assert nine.source_frames == 9
    with pytest.raises(InvalidInput, match="animated png has 8 frames, 9 input frames are needed"):
        decode_media(save(frames[0], "PNG", append_images=frames[1:9], **options))


def test_a_phone_jpeg_with_a_second_picture_is_its_first():
    data = save(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))], quality=95)
    media = decode_media(data)
    assert media.kind == "image"
    assert np.abs(media.frames[0, 4, 4].astype(int) - RED).max() < 12


def test_empty():
    with pytest.raises(InvalidInput, match="the media is empty: 0 bytes"):
        decode_media(b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_cut_image(format: str, part: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = save(Image.fromarray(noise), format)
    with pytest.raises(InvalidInput, match=f"the {format.lower()} image"):
        decode_media(data[: int(len(data) * part)])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("seed", range(15))
def test_damage_gives_pixels_or_a_sentence(format: str, seed: int):
    rng = np.random.default_rng(seed)
    data = bytearray(save(quarters(), format))
    for position in rng.integers(0, len(data), 4):
        data[position] = rng.integers(0, 256)
    with contextlib.suppress(InvalidInput):  # anything else that is raised fails the test
        assert decode_media(bytes(data)).frames.dtype == np.uint8


def test_bytes_are_bounded():
    with pytest.raises(InvalidInput, match="the media has 1001 bytes, at most 1000 are taken"):
        decode_media(bytes(1001), limits=MediaLimits(max_bytes=1000))


def test_a_decompression_bomb_is_refused_by_its_header():
    data = save(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(data) < 100_000
    with pytest.raises(InvalidInput, match="pixels"):
        decode_media(data)


def test_pixels_are_bounded():
    with pytest.raises(InvalidInput, match="the image is 48x32 pixels, at most 1000 pixels are taken"):
        decode_media(save(quarters(), "PNG"), limits=MediaLimits(max_image_pixels=1000))


def test_a_large_jpeg_is_decoded_at_half_its_size():
    limits = MediaLimits(max_image_pixels=1000)
    media = decode_media(save(quarters(), "JPEG", quality=95), limits=limits)
    assert (media.width, media.height) == (24, 16)
    assert np.abs(media.frames[0, 2, 2].astype(int) - RED).max() < 12
    assert media.notes == ("the jpeg of 48x32 pixels decoded at 24x16",)
    with pytest.raises(InvalidInput, match="48x32 pixels, at most 1500 pixels are taken"):
        decode_media(save(quarters(), "JPEG"), limits=MediaLimits(max_jpeg_pixels=1500))


def test_scans_are_bounded_by_the_size_of_the_picture(monkeypatch: pytest.MonkeyPatch):
    data = save(quarters(), "JPEG", progressive=True)
    monkeypatch.setattr(pictures, "MAX_JPEG_SCANNED_PIXELS", 9 * 48 * 32)
    with pytest.raises(InvalidInput, match="10 scans of 48x32 pixels, too much work"):
        decode_media(data)


def test_a_picture_shown_in_bands(monkeypatch: pytest.MonkeyPatch):
    data = save(quarters().convert("RGBA"), "PNG")
    monkeypatch.setattr(pictures, "_BAND_PIXELS", 48 * 5)
    assert np.array_equal(decode_media(data).frames[0], np.asarray(quarters()))


def test_one_time_limit_for_decoding_and_resizing():
    passed = Deadline(1e-9)
    with pytest.raises(InvalidInput, match="more than 1e-09 s"):
        decode_media(save(quarters(), "PNG"), deadline=passed)
    with pytest.raises(InvalidInput, match="more than 1e-09 s"):
        context_frames(decode_media(save(quarters(), "PNG")).frames, 16, 32, passed)


def test_a_jpeg_of_endless_scans():
    data = save(quarters(), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    with pytest.raises(InvalidInput, match="more than 100 scans"):
        decode_media(data[:start] + data[start:-2] * 200 + data[-2:])


def test_a_jpeg_of_endless_scans_behind_a_second_end_in_metadata():
    data = save(quarters(), "JPEG", progressive=True, comment=b"\xff\xd9")  # an end that is none
    start = data.index(b"\xff\xda")
    with pytest.raises(InvalidInput, match="more than 100 scans"):
        decode_media(data[:start] + data[start:-2] * 200 + data[-2:])


def test_a_jpeg_of_endless_segments():
    data = save(quarters(), "JPEG")
    with pytest.raises(InvalidInput, match="more than 10000 segments"):
        decode_media(data[:2] + b"\xff\xfe\x00\x02" * 10_001 + data[2:])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_motion_photo_is_its_picture(progressive: bool):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = save(Image.fromarray(noise), "JPEG", progressive=progressive, restart_marker_blocks=2)
    film = b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda" * 500  # what phones append: any bytes
    assert np.array_equal(decode_media(data + film).frames, decode_media(data).frames)


def test_metadata_holds_any_bytes():
    data = save(quarters(), "JPEG", comment=b"\xff\xda" * 500)
    assert decode_media(data).frames.shape == (1, 32, 48, 3)


@pytest.mark.parametrize("value", [0, 2, 5, -1, 33])
def test_other_numbers_of_input_frames(value: int):
    with pytest.raises(InvalidInput, match=f"num_input_frames is {value}, must be 1 or 9"):
        check_num_input_frames(value)
    with pytest.raises(InvalidInput, match=f"num_input_frames is {value}"):
        decode_media(save(quarters(), "PNG"), num_input_frames=value)


def test_limits_are_positive():
    with pytest.raises(ConfigurationError, match="max_frames is 0"):
        MediaLimits(max_frames=0)
