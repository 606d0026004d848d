"""Frames of an mp4, by FFmpeg (PyAV): the last of a stranger's, without decoding the ones before.

The file is read twice: once without decoding, to find the key frame from which the last n frames
can be decoded, then from there. An hour of video costs no more than its last group of pictures,
and only n frames are ever held.
"""

import io
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from cosmos_triton.errors import CosmosError, InvalidInput
from cosmos_triton.media.decoded import DecodedMedia
from cosmos_triton.media.display import shown
from cosmos_triton.media.limits import Deadline, MediaLimits

_THREADS = 4  # each holds frames of its own
_PADDING = (b"free", b"skip", b"wide")  # boxes whose content nobody reads

# Titles in any encoding: PyAV 17 and 18 fail on one that is not UTF-8 unless told, later ones take all.
_ANY_METADATA: Any = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


def decode_video(data: bytes, wanted: int, limits: MediaLimits, deadline: Deadline) -> DecodedMedia:
    """The last `wanted` frames as a player shows them.

    Raises:
        InvalidInput: the file is damaged, too large or too long, has no video or too few frames.
    """
    _check_whole(data)
    with _damage_is_invalid(), _opened(data, limits) as container:
        stream = _video_stream(container)
        limits.check_video_pixels(stream.codec_context.width, stream.codec_context.height)
        survey = _survey(container, stream, wanted, limits, deadline)
        if survey.frames < wanted:
            raise _too_short(survey.frames, wanted)
        kept = _decode_from(container, stream, survey.start, wanted, limits, deadline)
        if len(kept) < wanted and survey.start is not None:  # a field-coded or odd file: take all of it
            kept = _decode_from(container, stream, None, wanted, limits, deadline)
        if len(kept) < wanted:
            raise _too_short(len(kept), wanted)
        frames, notes = shown(_same_size(kept), stream, limits, deadline)
        return DecodedMedia(frames, "video", wanted, survey.frames, notes)


def all_frames(data: bytes) -> NDArray[np.uint8]:
    """Every frame of a video of our own making, which needs no limits: uint8 RGB [T, H, W, 3]."""
    with av.open(io.BytesIO(data), mode="r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames, dtype=np.uint8)


@dataclass(frozen=True)
class _Survey:
    """What a pass over the packets tells."""

    frames: int
    start: int | None  # dts of the key frame to decode from; None for the beginning


def _survey(
    container: InputContainer, stream: VideoStream, wanted: int, limits: MediaLimits, deadline: Deadline
) -> _Survey:
    shown: list[int] = []  # pts of the frames that are presented
    keys: list[tuple[int, int]] = []  # (pts, dts)
    count = 0
    for packet in container.demux(stream):
        deadline.check()
        if packet.size == 0:  # the end
            continue
        if packet.is_corrupt:
            raise InvalidInput("the mp4 video is damaged: its data ends before its frames do")
        if not packet.is_discard:
            count += 1
            limits.check_frames(count)
        if packet.pts is None or packet.dts is None:
            continue
        if packet.is_keyframe:
            keys.append((packet.pts, packet.dts))
        if not packet.is_discard:
            shown.append(packet.pts)
    if len(shown) < wanted:
        return _Survey(count, None)
    first_needed = sorted(shown)[-wanted]
    starts = [dts for pts, dts in keys if pts <= first_needed]
    return _Survey(count, max(starts) if starts else None)


def _decode_from(
    container: InputContainer,
    stream: VideoStream,
    start: int | None,
    wanted: int,
    limits: MediaLimits,
    deadline: Deadline,
) -> list[VideoFrame]:
    if start is None:
        container.seek(0)
    else:
        container.seek(start, stream=stream)
    kept: deque[VideoFrame] = deque(maxlen=wanted)
    for frame in container.decode(stream):
        deadline.check()
        limits.check_video_pixels(frame.width, frame.height)
        kept.append(frame)
    return list(kept)


def _same_size(frames: list[VideoFrame]) -> list[VideoFrame]:
    sizes = {(frame.width, frame.height) for frame in frames}
    if len(sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise InvalidInput(f"the last {len(frames)} frames of the video have different sizes: {listed}")
    return frames


def _video_stream(container: InputContainer) -> VideoStream:
    stream: Any = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise InvalidInput("the mp4 has no video track")
    if stream.codec_context is None:
        raise InvalidInput("the mp4 video has a codec that cannot be decoded")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _THREADS
    return stream


def _too_short(found: int, wanted: int) -> InvalidInput:
    return InvalidInput(f"the video has {found} frames, {wanted} input frames are needed")


def _check_whole(data: bytes) -> None:
    """Raises InvalidInput if a top-level box (ISO/IEC 14496-12) ends after the file does.

    FFmpeg plays what is left of a cut file; its last frames are then not those of the clip.
    """
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, position + 8)
        elif size == 0:  # to the end of the file
            return
        if size < 8 or not kind.isalnum():  # padding after the last box
            return
        if position + size > len(data):
            if kind in _PADDING:
                return
            name = kind.decode("ascii", "replace")
            missing = position + size - len(data)
            raise InvalidInput(f"the mp4 is cut short: box '{name}' lacks {missing} bytes")
        position += size


def _opened(data: bytes, limits: MediaLimits) -> InputContainer:
    # The format is fixed, so that no byte can turn the file into a playlist that names others.
    # FFmpeg itself refuses frames above max_pixels, before it allocates them.
    options = {"max_pixels": str(limits.max_video_pixels)}
    container: InputContainer = av.open(
        io.BytesIO(data), mode="r", format="mp4", options=options, **_ANY_METADATA
    )
    return container


@contextmanager
def _damage_is_invalid() -> Iterator[None]:
    """Whatever FFmpeg raises while it reads a client's bytes is about those bytes."""
    try:
        yield
    except CosmosError:
        raise
    except av.FFmpegError as error:  # its MemoryError too: a damaged table asks for any amount
        raise InvalidInput(f"the mp4 video cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:  # PyAV's own checks
        raise InvalidInput(f"the mp4 video cannot be read: {error}") from error
