"""The frames a request asked for, out of the bytes it sent.

What a file is follows from its first bytes; its name is never seen.

| content | is | frames used |
|---|---|---|
| png, jpeg, webp with one picture | image | that picture, whether 1 or 9 are asked for |
| animated png or webp | video | the last n |
| mp4 (any codec FFmpeg decodes) | video | the last n |

An image that is to be nine frames stays one: `context_frames` repeats it, as the reference does.
A jpeg with several pictures (MPO, written by phones) is its first picture.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.errors import InvalidInput
from cosmos_triton.geometry import ALLOWED_INPUT_FRAMES, CONTEXT_FRAMES
from cosmos_triton.media.limits import Deadline, MediaLimits
from cosmos_triton.media.pictures import AnimatedPicture, open_picture
from cosmos_triton.media.videos import last_frames

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class DecodedMedia:
    """The frames that condition a world, upright and in RGB, at the size of the file."""

    frames: NDArray[np.uint8]  # [1 or num_input_frames, H, W, 3]
    kind: Kind
    num_input_frames: int  # 1 or 9
    width: int
    height: int
    source_frames: int  # in the file


def check_num_input_frames(value: int) -> None:
    """Raises InvalidInput unless the video encoder can be conditioned on `value` frames (1 or 9)."""
    if value not in ALLOWED_INPUT_FRAMES:
        raise InvalidInput(f"num_input_frames is {value}, must be 1 or 9")


def decode_media(
    data: bytes, *, num_input_frames: int | None = None, limits: MediaLimits | None = None
) -> DecodedMedia:
    """The frames of an encoded file: the picture of an image, the last frames of a video.

    Args:
        data: a whole png, jpeg, webp or mp4 file.
        num_input_frames: 1 or 9; None means 1 for an image and 9 for a video.
        limits: bounds on the file; the defaults of `MediaLimits` if None.

    Raises:
        InvalidInput: the file is empty, too large, of another type, damaged, or has fewer frames
            than asked for; or num_input_frames is neither 1 nor 9.
    """
    limits = limits or MediaLimits()
    if num_input_frames is not None:
        check_num_input_frames(num_input_frames)
    limits.check_bytes(len(data))
    deadline = Deadline(limits.max_seconds)
    if _is_mp4(data):
        wanted = num_input_frames or CONTEXT_FRAMES
        frames, source_frames = last_frames(data, wanted, limits, deadline)
        return _decoded(frames, "video", wanted, source_frames)
    picture = open_picture(data, _picture_format(data), limits)
    if isinstance(picture, AnimatedPicture):
        wanted = num_input_frames or CONTEXT_FRAMES
        frames = picture.last_frames(wanted, limits, deadline)
        return _decoded(frames, "video", wanted, picture.count)
    return _decoded([picture.pixels()], "image", num_input_frames or 1, 1)


def _decoded(
    frames: Iterable[NDArray[np.uint8]], kind: Kind, wanted: int, source_frames: int
) -> DecodedMedia:
    stacked = np.stack(list(frames))  # [n, H, W, 3]
    _, height, width, _ = stacked.shape
    return DecodedMedia(stacked, kind, wanted, width, height, source_frames)


def _is_mp4(data: bytes) -> bool:
    """An ISO base media file opens with a box whose type follows its 32-bit size."""
    return data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")


def _picture_format(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise InvalidInput(f"the media is not a png, jpeg, webp or mp4 file: it starts with {data[:12].hex(' ')}")
