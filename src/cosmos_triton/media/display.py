"""Frames of a video as a player shows them: what the container says beyond the pixels, applied.

In this order: two fields of an interlaced frame become one picture; pixels that are no squares become
squares; what is transparent becomes black; colours become sRGB; the display matrix turns and mirrors.
A plain clip passes through unchanged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from cosmos_triton.media import colours
from cosmos_triton.media.colours import Encoding
from cosmos_triton.media.decoded import stacked
from cosmos_triton.media.limits import Deadline, MediaLimits
from cosmos_triton.media.orientation import AS_STORED, Orientation
from cosmos_triton.media.pictures import OVER_BLACK, over_black
from cosmos_triton.media.profiles import profiled

# Encoders that keep a shape through rounded sizes tell pixels of 1280:1281 and the like: these are left
# alone, since resampling would cost more than it mends.
_SQUARE = 0.01
_SKEW = 0.01  # of a display matrix: a turn by half a degree

# What a frame may carry that changes how it is meant to be looked at, and is not applied.
_NOT_APPLIED = {
    "SPHERICAL": "the video is spherical: its frames taken as they lie flat",
    "STEREO3D": "the video is stereoscopic: its frames taken as they are",
    "DOVI_METADATA": "Dolby Vision metadata not applied",
}


def shown(
    frames: list[VideoFrame], stream: VideoStream, limits: MediaLimits, deadline: Deadline
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decoded frames of one size → uint8 sRGB [n, H, W, 3], and notes on what that took.

    Each step is as the last frame says.

    Raises:
        InvalidInput: with square pixels the frames are too large, or time is up.
    """
    frames, fields = _progressive(frames, stream)
    last = frames[-1]
    size, shape = _square(last, stream.sample_aspect_ratio, limits)
    see_through = any(component.is_alpha for component in last.format.components) or last.format.has_palette
    colour = _colour(frames)
    orientation, turned = _orientation(last)
    transparent = False

    def pictures() -> Iterator[NDArray[np.uint8]]:
        nonlocal transparent
        for frame in frames:
            deadline.check()
            pixels = _pixels(frame, "rgba" if see_through else colour.format, size)
            if see_through:
                pixels, found = over_black(pixels)
                transparent |= found
            yield orientation.upright(colour.convert(pixels))

    stack = stacked(pictures(), len(frames))
    notes = (fields, shape, OVER_BLACK if transparent else None, colour.note, turned)
    beside = (note for kind, note in _NOT_APPLIED.items() if _side_data(last, kind) is not None)
    return stack, tuple(note for note in (*notes, *beside) if note)


def _progressive(frames: list[VideoFrame], stream: VideoStream) -> tuple[list[VideoFrame], str | None]:
    """Interlaced frames as whole pictures, by FFmpeg's bwdif: the first field of each, the second guessed."""
    if not any(frame.interlaced_frame for frame in frames):
        return frames, None
    graph = Graph()
    source = graph.add_buffer(
        width=frames[0].width, height=frames[0].height, format=frames[0].format, time_base=stream.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    for frame in (*frames, None):
        graph.vpush(frame)
    return [graph.vpull() for _ in frames], "interlaced frames deinterlaced"


def _square(
    frame: VideoFrame, aspect: Fraction | None, limits: MediaLimits
) -> tuple[tuple[int, int], str | None]:
    """(width, height) with square pixels: stretched, so that nothing is lost.

    Args:
        aspect: width of a pixel over its height; None or 0 if the file does not tell.
    """
    size = (frame.width, frame.height)
    if not aspect or abs(aspect - 1) < _SQUARE:
        return size, None
    size = (round(size[0] * aspect), size[1]) if aspect > 1 else (size[0], round(size[1] / aspect))
    limits.check_video_pixels(*size)
    shape = f"{aspect.numerator}:{aspect.denominator}"
    return size, f"pixels of shape {shape} made square: {size[0]}x{size[1]}"


def _pixels(frame: VideoFrame, format: str, size: tuple[int, int]) -> NDArray[Any]:
    """A frame in FFmpeg's `format` and of `size` (width, height): [H, W, channels]."""
    if size == (frame.width, frame.height):
        return frame.to_ndarray(format=format)
    return _scaled(frame, format, size, Interpolation.BICUBIC)


def _scaled(frame: VideoFrame, format: str, size: tuple[int, int], how: Interpolation) -> NDArray[Any]:
    return frame.to_ndarray(format=format, width=size[0], height=size[1], interpolation=how)


@dataclass(frozen=True)
class _Colour:
    """How pixels become sRGB."""

    format: str  # FFmpeg's name of what `convert` takes
    convert: Callable[[NDArray[Any]], NDArray[np.uint8]]
    note: str | None


def _colour(frames: list[VideoFrame]) -> _Colour:
    last = frames[-1]
    if encoding := colours.coded(last.color_primaries, last.color_trc):
        peak = max(_peak(frame, encoding) for frame in frames) if encoding.hdr else 1.0
        return _Colour("rgb48le", partial(colours.to_srgb, encoding=encoding, peak=peak), encoding.note)
    profile = _side_data(last, "ICC_PROFILE")
    conversion = profiled(profile, "RGB") if profile else None
    if conversion:
        apply = conversion.apply
        return _Colour("rgb24", lambda pixels: np.asarray(apply(Image.fromarray(pixels))), conversion.note)
    return _Colour("rgb24", lambda pixels: pixels, None)


def _peak(frame: VideoFrame, encoding: Encoding) -> float:
    """The lightest channel of a frame, by one pixel of sixteen."""
    size = (max(1, frame.width // 4), max(1, frame.height // 4))
    return colours.peak(_scaled(frame, "rgb48le", size, Interpolation.POINT), encoding)


def _orientation(frame: VideoFrame) -> tuple[Orientation, str | None]:
    """By the display matrix (ISO/IEC 14496-12, 6.2.2): pixel (x, y) is shown at (a x + c y, b x + d y)."""
    matrix = _side_data(frame, "DISPLAYMATRIX")
    if matrix is None:
        return AS_STORED, None
    a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32)[:5])
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    across, down = (c, b) if crossed > straight else (a, d)
    orientation = Orientation(crossed > straight, across < 0, down < 0)
    if min(straight, crossed) > _SKEW * max(straight, crossed):
        return orientation, "turned by the display matrix, its angle rounded to a quarter turn"
    return orientation, None if orientation == AS_STORED else "turned or mirrored by the display matrix"


def _side_data(frame: VideoFrame, kind: str) -> bytes | None:
    """By FFmpeg's name, without AV_FRAME_DATA_."""
    found = frame.side_data.get(kind)
    return bytes(found) if isinstance(found, SideData) else None
