"""How much work one file of a request may cause."""

import time
from dataclasses import dataclass, field, fields

from cosmos_triton.errors import ConfigurationError, InvalidInput


@dataclass(frozen=True)
class MediaLimits:
    """Bounds on one file. Each is checked before the memory or time it bounds is spent.

    What a request adds to the stage at these limits, measured on two x86 cores: a png or jpeg 250 to
    450 MB, a webp 560 MB, a 4K clip 600 MB in 8 bits and 900 MB in 10 bits with HDR. A picture of
    33 megapixels takes 2 to 3 s of processor time, half of it the resize.
    """

    max_bytes: int = 256 * 1024 * 1024  # of the encoded file
    max_image_pixels: int = 7680 * 4320  # of a still, as it is decoded
    max_jpeg_pixels: int = 64_000_000  # of a jpeg, which can be decoded at half its size
    max_video_pixels: int = 4096 * 2304  # of one frame of a video or an animated image
    max_frames: int = 20_000  # in the file, not only those that are used
    max_seconds: float = 10.0  # of decoding and resizing, by the wall clock

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value <= 0:
                raise ConfigurationError(f"media limit {item.name} is {value}, must be positive")

    def check_bytes(self, size: int) -> None:
        """Raises InvalidInput for an empty file and for one of more than `max_bytes`."""
        if size == 0:
            raise InvalidInput("the media is empty: 0 bytes")
        if size > self.max_bytes:
            raise InvalidInput(f"the media has {size} bytes, at most {self.max_bytes} are taken")

    def check_image_pixels(self, width: int, height: int) -> None:
        """Raises InvalidInput for a still that is too large."""
        _check_pixels("image", width, height, self.max_image_pixels)

    def check_jpeg_pixels(self, width: int, height: int) -> None:
        """Raises InvalidInput for a jpeg that is too large even at half its size."""
        _check_pixels("image", width, height, self.max_jpeg_pixels)

    def check_video_pixels(self, width: int, height: int) -> None:
        """Raises InvalidInput for a video whose frames are too large."""
        _check_pixels("video", width, height, self.max_video_pixels)

    def check_frames(self, count: int) -> None:
        """Raises InvalidInput for a video of more than `max_frames`."""
        if count > self.max_frames:
            raise InvalidInput(f"the video has more than {self.max_frames} frames, the most that is taken")


def _check_pixels(kind: str, width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise InvalidInput(f"the {kind} is {width}x{height} pixels, at most {limit} pixels are taken")


@dataclass(frozen=True)
class Deadline:
    """The wall-clock end of one file's decoding and resizing; `check` is called between steps."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises InvalidInput once `seconds` have passed since construction."""
        if time.monotonic() - self.started > self.seconds:
            raise InvalidInput(f"decoding the media takes more than {self.seconds:g} s, the most it is given")
