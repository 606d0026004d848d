"""What decoding gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class DecodedMedia:
    """The frames that condition a world, upright and in sRGB, at the size of the file."""

    frames: NDArray[np.uint8]  # [1 or num_input_frames, H, W, 3]
    kind: Kind
    num_input_frames: int  # 1 or 9
    source_frames: int  # in the file
    notes: tuple[str, ...] = ()  # what was done or left out beyond plain decoding: short sentences

    @property
    def width(self) -> int:
        """Pixels, as shown."""
        return self.frames.shape[2]

    @property
    def height(self) -> int:
        """Pixels, as shown."""
        return self.frames.shape[1]


def stacked(frames: Iterator[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """`count` frames [H, W, 3] of one size → [count, H, W, 3], without holding all of them twice."""
    first = next(frames)
    if count == 1:
        return first[None]
    out = np.empty((count, *first.shape), np.uint8)
    out[0] = first
    for index, frame in enumerate(frames, start=1):
        out[index] = frame
    return out
