"""Stills whose colours are told to be other than sRGB's."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cosmos_triton.media import decode_media
from support.media_files import icc_profile, save

PATCHES = np.array([(200, 60, 50), (70, 160, 80), (60, 80, 190), (220, 170, 140), (30, 30, 30)], np.uint8)

# Light of BT.709 as light of Adobe RGB (1998), and the XYZ (D50) of its primaries.
TO_ADOBE = np.array([[0.7151, 0.2849, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0412, 0.9588]])
ADOBE_XYZ = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
ADOBE_GAMMA = 563 / 256


def linear(codes: np.ndarray) -> np.ndarray:
    code = codes / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def picture(patches: np.ndarray) -> Image.Image:
    """Patches [n, 3] of 16x32 pixels."""
    return Image.fromarray(np.repeat(patches[None], 32, axis=0).repeat(16, axis=1))


def middles(pixels: np.ndarray) -> np.ndarray:
    return pixels[16, 8::16].astype(int)


def adobe_picture() -> Image.Image:
    codes = np.round(255 * (linear(PATCHES) @ TO_ADOBE.T) ** (1 / ADOBE_GAMMA))
    return picture(codes.astype(np.uint8))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A chunk after the header of a png."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("JPEG", {"quality": 98}), ("WEBP", {"lossless": True})]
)
def test_an_icc_profile_is_applied(format: str, options: dict[str, object]):
    profile = icc_profile(ADOBE_XYZ, ADOBE_GAMMA)
    media = decode_media(save(adobe_picture(), format, icc_profile=profile, **options))
    assert np.abs(middles(media.frames[0]) - PATCHES).max() <= 5
    assert media.notes == ("colours converted from the profile 'a test' to sRGB",)


def test_the_profile_of_srgb_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    media = decode_media(save(picture(PATCHES), "PNG", icc_profile=profile))
    assert np.array_equal(middles(media.frames[0]), PATCHES)
    assert media.notes == ()


def test_the_profile_of_a_palette_and_its_transparency():
    image = adobe_picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[255], [0]], 16, axis=0).repeat(80, axis=1).astype(np.uint8)))
    media = decode_media(save(image, "PNG", icc_profile=icc_profile(ADOBE_XYZ, ADOBE_GAMMA)))
    assert np.abs(media.frames[0, 8, 8::16].astype(int) - PATCHES).max() <= 5
    assert not media.frames[0, 16:].any()
    assert media.notes[1] == "transparent parts shown over black"


def test_a_grey_profile():
    profile = icc_profile(ADOBE_XYZ, 1.0, b"GRAY")
    media = decode_media(save(Image.new("L", (32, 32), 55), "PNG", icc_profile=profile))
    assert np.abs(media.frames.astype(int) - 128).max() <= 2  # 55 / 255 of the light


@pytest.mark.parametrize(
    ("mode", "profile", "note"),
    [
        ("RGB", b"no profile", "the colour profile is damaged and was not applied"),
        (
            "RGB",
            icc_profile(ADOBE_XYZ, 1.0, b"GRAY"),
            "the colour profile 'a test' is for GRAY pixels and was not applied",
        ),
    ],
)
def test_a_profile_that_cannot_be_used_is_told(mode: str, profile: bytes, note: str):
    media = decode_media(save(picture(PATCHES).convert(mode), "PNG", icc_profile=profile))
    assert np.array_equal(middles(media.frames[0]), PATCHES)
    assert media.notes == (note,)


def test_a_camera_says_adobe_rgb_by_a_word():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    media = decode_media(save(adobe_picture(), "JPEG", quality=98, exif=exif))
    assert np.abs(middles(media.frames[0]) - PATCHES).max() <= 5
    assert media.notes == ("gamma 2.2, Adobe RGB colours converted to sRGB",)


def test_gamma_and_chromaticities_of_a_png():
    png = save(adobe_picture(), "PNG")
    chromaticities = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    png = with_chunk(png, b"cHRM", struct.pack(">8I", *chromaticities))
    png = with_chunk(png, b"gAMA", struct.pack(">I", round(100000 / ADOBE_GAMMA)))
    media = decode_media(png)
    assert np.abs(middles(media.frames[0]) - PATCHES).max() <= 5
    assert media.notes == ("gamma 2.2, its own primaries colours converted to sRGB",)
    said_srgb = decode_media(with_chunk(png, b"sRGB", b"\0"))
    assert said_srgb.notes == ()


@pytest.mark.parametrize("chromaticities", [(0,) * 8, (31270, 32900) + (64000, 33000) * 3])
def test_impossible_chromaticities(chromaticities: tuple[int, ...]):
    png = with_chunk(save(picture(PATCHES), "PNG"), b"cHRM", struct.pack(">8I", *chromaticities))
    png = with_chunk(png, b"gAMA", struct.pack(">I", 45455))
    assert np.array_equal(middles(decode_media(png).frames[0]), PATCHES)


def test_code_points_of_an_hdr_png():
    signal = np.array([[0.5806] * 3, [0.4] * 3])  # of ST 2084: 203 cd/m², and about 33
    png = save(picture(np.round(255 * signal).astype(np.uint8)), "PNG")
    media = decode_media(with_chunk(png, b"cICP", bytes([9, 16, 0, 1])))
    assert np.abs(middles(media.frames[0])[:, 0] - [255, 112]).max() <= 4
    assert media.notes == ("HDR (PQ, BT.2020) colours tone-mapped to sRGB",)


def test_pixels_that_are_no_squares_are_told():
    media = decode_media(save(picture(PATCHES), "PNG", dpi=(204, 98)))
    assert media.frames.shape == (1, 32, 80, 3)
    assert media.notes == ("its density of 203.987x97.9932 not applied: pixels taken for squares",)
