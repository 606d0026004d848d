"""The frames a request asked for, out of the bytes it sent.

| content | is | frames used |
|---|---|---|
| png, jpeg, webp with one picture | image | that picture, whether 1 or 9 are asked for |
| animated png or webp | video | the last n of the animation |
| mp4 (any codec FFmpeg decodes) | video | the last n |

An image that is to be nine frames stays one: `context_frames` repeats it, as the reference does.
A jpeg with several pictures (MPO, written by phones) is its first picture.
"""

from cosmos_triton.errors import InvalidInput
from cosmos_triton.geometry import ALLOWED_INPUT_FRAMES, CONTEXT_FRAMES
from cosmos_triton.media.decoded import DecodedMedia
from cosmos_triton.media.formats import media_format
from cosmos_triton.media.limits import Deadline, MediaLimits
from cosmos_triton.media.pictures import decode_picture
from cosmos_triton.media.videos import decode_video


def check_num_input_frames(value: int) -> None:
    """Raises InvalidInput unless the video encoder can be conditioned on `value` frames (1 or 9)."""
    if value not in ALLOWED_INPUT_FRAMES:
        raise InvalidInput(f"num_input_frames is {value}, must be 1 or 9")


def decode_media(
    data: bytes,
    *,
    num_input_frames: int | None = None,
    limits: MediaLimits | None = None,
    deadline: Deadline | None = None,
) -> DecodedMedia:
    """The frames of an encoded file: the picture of an image, the last frames of a video.

    Args:
        data: a whole png, jpeg, webp or mp4 file.
        num_input_frames: 1 or 9; None means 1 for an image and 9 for a video.
        limits: bounds on the file; the defaults of `MediaLimits` if None.
        deadline: shared with the resize that follows; begins now if None.

    Raises:
        InvalidInput: the file is empty, too large, of another type, damaged, or has fewer frames
            than asked for; or num_input_frames is neither 1 nor 9.
    """
    limits = limits or MediaLimits()
    if num_input_frames is not None:
        check_num_input_frames(num_input_frames)
    limits.check_bytes(len(data))
    deadline = deadline or Deadline(limits.max_seconds)
    format = media_format(data)
    if format == "MP4":
        return decode_video(data, num_input_frames or CONTEXT_FRAMES, limits, deadline)
    return decode_picture(data, format, num_input_frames, limits, deadline)
