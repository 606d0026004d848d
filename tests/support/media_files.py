"""Small media files, made by code."""

import io
import struct
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from cosmos_triton.media.decoded import DecodedMedia


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames whose grey tells their index: frame i is 5 i everywhere."""
    return np.stack([np.full((height, width, 3), 5 * index, np.uint8) for index in range(count)])


def indices(media: DecodedMedia) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in media.frames]


def encode(
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str = "mp4",
    options: dict[str, str] | None = None,
    pts: list[int] | None = None,
    mux_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    colour: tuple[int, int] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A video of RGB frames [H, W, 3], of 8 bits or 16.

    Args:
        aspect: of a pixel.
        colour: code points of primaries and transfer function.
    """
    frames = list(frames)
    file = io.BytesIO()
    with av.open(file, mode="w", format=container, options=mux_options or {}) as muxer:
        muxer.metadata.update(metadata or {})
        stream = muxer.add_stream(codec, rate=25, options=options or {"crf": "4"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if colour is not None:
            stream.codec_context.color_primaries, stream.codec_context.color_trc = colour
        for index, array in enumerate(frames):
            source = {1: "rgb24", 2: "rgb48le"}[array.itemsize] if array.shape[2] == 3 else "rgba"
            frame = VideoFrame.from_ndarray(array, format=source).reformat(format=pix_fmt)
            frame.pts = pts[index] if pts else index
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    return file.getvalue()


def with_matrix(mp4: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """An mp4 whose track says that pixel (x, y) is shown at (a x + c y, b x + d y)."""
    start = mp4.index(b"tkhd") + 44  # of version 0: flags, times, number, duration, layer, volume
    return (
        mp4[:start]
        + struct.pack(">9i", *(v << 16 for v in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
        + mp4[start + 36 :]
    )


def save(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def icc_profile(primaries: np.ndarray, exponent: float, space: bytes = b"RGB ") -> bytes:
    """A matrix profile (ICC.1:2001-04).

    Args:
        primaries: [3, 3], XYZ (D50) of red, green and blue in columns.
        exponent: light = code ** exponent.
    """

    def xyz(values: Iterable[float]) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2)
    name = b"a test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(79),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
    }
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {bytes([c]) + b"XYZ": xyz(primaries[:, i]) for i, c in enumerate(b"rgb")}
        tags |= {bytes([c]) + b"TRC": curve for c in b"rgb"}
    table, content, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">2I", offset + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI", offset + len(content), bytes(4), 0x02100000) + b"mntr" + space + b"XYZ "
    head = head + bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + content
