"""Pictures whose colours are not sRGB, made sRGB.

A file may describe its colours in several ways; the first of these counts (PNG, third edition, 4.3):
code points (cICP), an ICC profile (applied by LittleCMS), the word that they are sRGB, gamma and
chromaticities. A jpeg without a profile may say Adobe RGB in its EXIF data (DCF 2.0).
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageCms

from cosmos_triton.media import colours
from cosmos_triton.media.colours import Encoding, Primaries

_SEEN = 2  # of 255: a profile that moves no colour by more is sRGB's, whatever its name
_PIXELS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's pixels → Pillow's mode
_GREY_MODES = ("1", "L", "LA", "I;16", "I")
_SRGB_GAMMA = 0.45455  # as a png writes it
_SAME = 0.05  # relative difference of two gammas that libpng takes for equal
_ADOBE_GAMMA = 563 / 256
_ADOBE_WORD = "R03"


@dataclass(frozen=True)
class Conversion:
    """How the pictures of a file become sRGB, and the sentence about it for the report."""

    mode: str  # of the pixels that `convert` takes
    convert: Callable[[Image.Image], Image.Image]  # → RGB
    note: str

    def apply(self, image: Image.Image) -> Image.Image:
        """An 8-bit picture of any mode → RGB, or RGBA if it has transparency."""
        converted = self.convert(image.convert(self.mode))
        if "A" in image.getbands():
            converted.putalpha(image.getchannel("A"))
        return converted


def conversion(image: Image.Image, data: bytes) -> Conversion | None:
    """What a file asks for; None where its pixels are sRGB, or nothing says otherwise.

    Args:
        image: opened, not yet loaded.
        data: the file it was opened from.
    """
    if encoding := _code_points(image, data):
        return _encoded(encoding, image)
    if profile := image.info.get("icc_profile"):
        return profiled(profile, image.mode)
    encoding = _gamma(image) or _adobe_word(image)
    return _encoded(encoding, image) if encoding else None


def profiled(icc: bytes, mode: str) -> Conversion | None:
    """By an ICC profile; one that does not fit pixels of `mode` is left out, and said to be."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        name = ImageCms.getProfileDescription(profile).strip()[:40]
        if not _fits(space, mode):
            return _left_out(f"the colour profile {name!r} is for {space} pixels and was not applied")
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            _PIXELS[space],
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ValueError, ImageCms.PyCMSError):
        return _left_out("the colour profile is damaged and was not applied")

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # it is None only in place
        return converted

    if space != "CMYK" and _keeps(convert, _samples(_PIXELS[space])):
        return None
    return Conversion(_PIXELS[space], convert, f"colours converted from the profile {name!r} to sRGB")


def _fits(space: str, mode: str) -> bool:
    fitting = {"RGB": mode != "CMYK", "GRAY": mode in _GREY_MODES, "CMYK": mode == "CMYK"}
    return fitting.get(space, False)


def _left_out(note: str) -> Conversion:
    return Conversion("RGB", lambda image: image, note)


def _samples(mode: str) -> Image.Image:
    """Greys, or colours of all over the cube."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(steps[None])
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))


def _keeps(convert: Callable[[Image.Image], Image.Image], samples: Image.Image) -> bool:
    before = np.asarray(samples.convert("RGB")).astype(int)
    return bool(np.abs(np.asarray(convert(samples)) - before).max() <= _SEEN)


def _encoded(encoding: Encoding, image: Image.Image) -> Conversion:
    peak = _peak(encoding, image) if encoding.hdr else 1.0

    def convert(image: Image.Image) -> Image.Image:
        return Image.fromarray(colours.to_srgb(np.asarray(image), encoding, peak))

    return Conversion("RGB", convert, encoding.note)


def _peak(encoding: Encoding, image: Image.Image) -> float:
    """The lightest channel, by one pixel of sixteen."""
    size = (max(1, image.width // 4), max(1, image.height // 4))
    return colours.peak(np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGB")), encoding)


def _code_points(image: Image.Image, data: bytes) -> Encoding | None:
    """Of a png's cICP chunk, which stands before the pixels and which Pillow leaves unread."""
    if image.format != "PNG":
        return None
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"cICP" and length == 4:
            return colours.coded(data[position + 8], data[position + 9])
        if kind in (b"IDAT", b"IEND"):
            return None
        position += length + 12
    return None


def _gamma(image: Image.Image) -> Encoding | None:
    """Of a png's gAMA and cHRM chunks, unless it says sRGB."""
    value = image.info.get("gamma")
    if not value or "srgb" in image.info:
        return None
    primaries = _chromaticities(image.info.get("chromaticity"))
    if primaries is colours.BT709 and abs(value / _SRGB_GAMMA - 1) <= _SAME:
        return None
    return colours.gamma(1 / value, primaries)


def _chromaticities(values: tuple[float, ...] | None) -> Primaries:
    """Of eight numbers (white, red, green, blue); sRGB's where they are its own or none at all."""
    if values is None:
        return colours.BT709
    white, red, green, blue = zip(values[::2], values[1::2], strict=True)
    told = Primaries("its own primaries", red, green, blue, white)
    return told if colours.possible(told) and not colours.same(told, colours.BT709) else colours.BT709


def _adobe_word(image: Image.Image) -> Encoding | None:
    """Of a camera's jpeg: Adobe RGB, said by its interoperability index alone."""
    if image.format not in ("JPEG", "MPO"):
        return None
    word = image.getexif().get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    return colours.gamma(_ADOBE_GAMMA, colours.ADOBE_RGB) if word == _ADOBE_WORD else None
