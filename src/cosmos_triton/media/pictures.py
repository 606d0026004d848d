"""Stills and animated pictures (png, jpeg, webp) to upright sRGB, by Pillow."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from cosmos_triton.errors import CosmosError, InvalidInput
from cosmos_triton.geometry import CONTEXT_FRAMES
from cosmos_triton.media import orientation
from cosmos_triton.media.decoded import DecodedMedia, stacked
from cosmos_triton.media.limits import Deadline, MediaLimits
from cosmos_triton.media.profiles import conversion

# A progressive jpeg is decoded in passes over the whole picture. Encoders write about ten; a file
# made to waste time writes thousands of them in a few bytes each.
MAX_JPEG_SCANS = 100
MAX_JPEG_SCANNED_PIXELS = 1_000_000_000  # scans times pixels: 15 scans of the largest picture
MAX_JPEG_SEGMENTS = 10_000  # tables, metadata, scans: a photograph has tens, a few hundred with a depth map

# Markers that end something: the picture (D9), or entropy-coded data because a segment starts. Left out
# are stuffed zeros, restarts (D0 to D7) and whatever else stands alone within coded data.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"

_BAND_PIXELS = 1 << 20  # made sRGB at a time: about 20 MB
OVER_BLACK = "transparent parts shown over black"


def decode_picture(
    data: bytes, format: str, num_input_frames: int | None, limits: MediaLimits, deadline: Deadline
) -> DecodedMedia:
    """A still, or the last frames of an animation, which is a video in all but name.

    Args:
        format: PNG, JPEG or WEBP.
        num_input_frames: 1 or 9; None means 1 of a still and 9 of an animation.

    Raises:
        InvalidInput: the file is damaged, too large or too long, or has too few frames.
    """
    scans = _jpeg_scans(data) if format == "JPEG" else 0
    with _damage_is_invalid(format):
        image = Image.open(io.BytesIO(data), formats=[format])
        count = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
        if count > 1:
            return _animation(image, data, count, num_input_frames or CONTEXT_FRAMES, limits, deadline)
        notes = _limit_jpeg(image, scans, limits) if scans else _limit_still(image, limits)
        viewer = _Viewer(image, data)
        frames = viewer.pixels(image)[None]
        deadline.check()
        return DecodedMedia(frames, "image", num_input_frames or 1, 1, (*notes, *viewer.notes))


def _limit_still(image: Image.Image, limits: MediaLimits) -> tuple[str, ...]:
    limits.check_image_pixels(*image.size)
    return ()


def _limit_jpeg(image: Image.Image, scans: int, limits: MediaLimits) -> tuple[str, ...]:
    """A jpeg that would be too large a still is set to be decoded at half its size, and noted."""
    width, height = image.size
    limits.check_jpeg_pixels(width, height)
    if scans * width * height > MAX_JPEG_SCANNED_PIXELS:
        raise InvalidInput(f"the jpeg has {scans} scans of {width}x{height} pixels, too much work to decode")
    if width * height <= limits.max_image_pixels:
        return ()
    image.draft(None, (width // 2, height // 2))
    limits.check_image_pixels(*image.size)
    return (f"the jpeg of {width}x{height} pixels decoded at {image.width}x{image.height}",)


def _animation(
    image: Image.Image, data: bytes, pictures: int, wanted: int, limits: MediaLimits, deadline: Deadline
) -> DecodedMedia:
    limits.check_video_pixels(*image.size)
    start = int(image.info.get("default_image", False))  # for viewers that cannot play; no frame of it
    count = pictures - start
    if count < wanted:
        name = image.format.lower() if image.format else "picture"
        raise InvalidInput(f"the animated {name} has {count} frames, {wanted} input frames are needed")
    limits.check_frames(count)
    viewer = _Viewer(image, data)

    def last() -> Iterator[NDArray[np.uint8]]:
        for index in range(start, pictures):  # each is drawn over the one before: none can be left out
            deadline.check()
            image.seek(index)
            image.load()
            if index >= pictures - wanted:
                yield viewer.pixels(image)

    frames = stacked(last(), wanted)
    return DecodedMedia(frames, "video", wanted, count, viewer.notes)


def _jpeg_scans(data: bytes) -> int:
    """Passes that decoding takes; raises InvalidInput where they are far more than a picture needs."""
    scans = 0
    for segments, marker in enumerate(_jpeg_segments(data), start=1):
        scans += marker == _START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            raise InvalidInput(f"the jpeg has more than {MAX_JPEG_SCANS} scans, the most that is taken")
        if segments > MAX_JPEG_SEGMENTS:
            raise InvalidInput(f"the jpeg has more than {MAX_JPEG_SEGMENTS} segments, the most that is taken")
    return scans


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """The marker of each segment of a jpeg's first picture (ITU-T T.81, annex B), in order.

    Phones append a video or a second picture after the end of the image: no decoder gets there.
    """
    position = 2  # after the start of the image
    while (found := _JPEG_MARKER.search(data, position)) and found[1] != _END_OF_IMAGE:
        yield found[1]
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")  # its own two bytes included
        position = found.end() + max(length, 2)


class _Viewer:
    """Shows the pictures of one file, and remembers what that took."""

    def __init__(self, image: Image.Image, data: bytes) -> None:
        self._conversion = conversion(image, data)
        self._exif = image.getexif().get(ExifTags.Base.Orientation, 1)
        self._orientation = orientation.EXIF.get(self._exif, orientation.AS_STORED)
        self._density = _uneven_density(image)
        self._transparent = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the pictures shown so far."""
        turned = self._orientation != orientation.AS_STORED
        notes = (
            self._conversion.note if self._conversion else None,
            OVER_BLACK if self._transparent else None,
            f"turned or mirrored by EXIF orientation {self._exif}" if turned else None,
            self._density,
        )
        return tuple(note for note in notes if note)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Upright sRGB [H, W, 3] of a picture of any mode, transparency over black."""
        image.load()
        width, height = image.size
        rows = max(1, _BAND_PIXELS // width)  # Pillow's way to an array holds three copies
        out = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, rows):
            band = (0, top, width, min(top + rows, height))
            out[top : top + rows] = self._srgb(image.crop(band))
        return self._orientation.upright(out)

    def _srgb(self, image: Image.Image) -> NDArray[np.uint8]:
        image = _eight_bit(image)
        if self._conversion:
            image = self._conversion.apply(image)
        if image.mode != "RGBA":
            return np.asarray(image.convert("RGB"))
        pixels, transparent = over_black(np.asarray(image))
        self._transparent |= transparent
        return pixels


def over_black(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """RGBA [H, W, 4] → RGB [H, W, 3] over black, and whether anything was transparent."""
    if (pixels[..., 3] == 255).all():
        return pixels[..., :3], False
    image = Image.fromarray(pixels)
    shown = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(shown.convert("RGB")), True


def _eight_bit(image: Image.Image) -> Image.Image:
    """Palettes and transparent colours resolved; 16-bit grey scaled, which Pillow would clip at 255."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.uint32)  # [H, W]
        return Image.fromarray(((np.minimum(grey, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB") if image.mode == "P" else image


def _uneven_density(image: Image.Image) -> str | None:
    """A note on pixels that are told to be no squares; viewers show them as squares all the same."""
    width, height = (
        image.info.get("aspect") or image.info.get("jfif_density") or image.info.get("dpi") or (1, 1)
    )
    if width <= 0 or height <= 0 or abs(width / height - 1) < 0.01:
        return None
    return f"its density of {width:g}x{height:g} not applied: pixels taken for squares"


@contextmanager
def _damage_is_invalid(format: str) -> Iterator[None]:
    """Whatever a decoder raises while it reads a client's bytes is about those bytes."""
    try:
        yield
    except (CosmosError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(f"the {format.lower()} image is too large: {error}") from error
    except UnidentifiedImageError as error:  # its message is about the file object
        raise InvalidInput(f"the {format.lower()} image cannot be read: its header is damaged") from error
    except Exception as error:
        raise InvalidInput(f"the {format.lower()} image cannot be read: {error}") from error
