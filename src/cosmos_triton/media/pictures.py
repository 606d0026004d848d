"""Stills and animated pictures (png, jpeg, webp) to upright RGB, by Pillow."""

import io
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cosmos_triton.errors import CosmosError, InvalidInput
from cosmos_triton.media.limits import Deadline, MediaLimits

# A progressive jpeg is decoded in passes over the whole picture. Encoders write about ten; a file
# made to waste time writes thousands of them in a few bytes each.
MAX_JPEG_SCANS = 100
MAX_JPEG_SEGMENTS = 10_000  # tables, metadata, scans: a photograph has tens, a few hundred with a depth map

# Markers that end something: the picture (D9), or entropy-coded data because a segment starts. Left out
# are stuffed zeros, restarts (D0 to D7) and whatever else stands alone within coded data.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"


@dataclass(frozen=True)
class StillPicture:
    """A picture whose header has been read and found within limits."""

    image: Image.Image
    format: str

    def pixels(self) -> NDArray[np.uint8]:
        """The upright picture, uint8 RGB [H, W, 3]."""
        with _damage_is_invalid(self.format):
            return _rgb(ImageOps.exif_transpose(self.image))


@dataclass(frozen=True)
class AnimatedPicture:
    """An animated png or webp: a video in all but name."""

    image: Image.Image
    format: str
    count: int

    def last_frames(self, wanted: int, limits: MediaLimits, deadline: Deadline) -> list[NDArray[np.uint8]]:
        """The last `wanted` frames, each uint8 RGB [H, W, 3]."""
        if self.count < wanted:
            raise InvalidInput(
                f"the animated {self.format} has {self.count} frames, {wanted} input frames are needed"
            )
        limits.check_frames(self.count)
        kept: deque[NDArray[np.uint8]] = deque(maxlen=wanted)
        with _damage_is_invalid(self.format):
            for index in range(self.count):  # frames are drawn over one another: none can be left out
                deadline.check()
                self.image.seek(index)
                self.image.load()
                if index >= self.count - wanted:
                    kept.append(_rgb(self.image))
        return list(kept)


def open_picture(data: bytes, format: str, limits: MediaLimits) -> StillPicture | AnimatedPicture:
    """Reads the header of a picture and checks its size; pixels are decoded later.

    Raises:
        InvalidInput: the header is damaged or the picture is too large.
    """
    if format == "JPEG":
        _check_jpeg_work(data)
    with _damage_is_invalid(format):
        image = Image.open(io.BytesIO(data), formats=[format])
        count = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
    if count > 1:
        limits.check_video_pixels(*image.size)
        return AnimatedPicture(image, format.lower(), count)
    limits.check_image_pixels(*image.size)
    return StillPicture(image, format.lower())


def _check_jpeg_work(data: bytes) -> None:
    """Raises InvalidInput for a jpeg whose decoding takes far more steps than its size tells."""
    scans = 0
    for segments, marker in enumerate(_jpeg_segments(data), start=1):
        scans += marker == _START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            raise InvalidInput(f"the jpeg has more than {MAX_JPEG_SCANS} scans, the most that is taken")
        if segments > MAX_JPEG_SEGMENTS:
            raise InvalidInput(f"the jpeg has more than {MAX_JPEG_SEGMENTS} segments, the most that is taken")


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """The marker of each segment of a jpeg's first picture (ITU-T T.81, annex B), in order.

    Phones append a video or a second picture after the end of the image: no decoder gets there.
    """
    position = 2  # after the start of the image
    while (found := _JPEG_MARKER.search(data, position)) and found[1] != _END_OF_IMAGE:
        yield found[1]
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")  # its own two bytes included
        position = found.end() + max(length, 2)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any mode to RGB [H, W, 3]: 16 bits are scaled to 8, transparency is shown over black."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.uint32)  # [H, W]
        eight = ((np.minimum(grey, 65535) * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(eight[..., None], 3, axis=-1)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


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
