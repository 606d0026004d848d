"""Whether a request's tensors can be what a stage takes, found out before any work is done with them.

Triton checks types and those dimensions that a pbtxt fixes. Sizes, ranges and NaN are checked here; a token
out of range would otherwise reach an embedding, which on a GPU ends the process's CUDA context. Values are
numpy arrays, or PyTorch tensors on any device.
"""

import math
from typing import Any

from cosmos_triton.errors import InvalidInput


def check_shape(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raises InvalidInput unless the value has this shape."""
    if tuple(value.shape) != shape:
        raise InvalidInput(f"{name} has shape {list(value.shape)}, not {list(shape)}")


def check_range(name: str, value: Any, least: int, most: int) -> None:
    """Raises InvalidInput unless all integers of the value, which is not empty, are in least..most."""
    for extreme in (int(value.min()), int(value.max())):
        if not least <= extreme <= most:
            raise InvalidInput(f"{name} holds {extreme}, which is not in {least}..{most}")


def check_finite(name: str, value: Any) -> None:
    """Raises InvalidInput if the value, which is not empty, holds NaN or an infinity."""
    for extreme in (float(value.min()), float(value.max())):  # NaN is the extreme of what holds one
        if not math.isfinite(extreme):
            raise InvalidInput(f"{name} holds {extreme}, which is not a finite number")


def check_picture_size(name: str, frames: Any) -> None:
    """Raises InvalidInput unless frames [T, H, W, 3] can be a video: height and width even, not zero."""
    _, height, width, _ = frames.shape
    if not height or not width or height % 2 or width % 2:
        raise InvalidInput(f"{name} are {height}x{width} pixels; both must be even and above zero")
