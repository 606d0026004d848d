"""A clip made by code, for a first try without any file at hand."""

import numpy as np
from numpy.typing import NDArray


def synthetic_clip(frames: int = 24, height: int = 200, width: int = 320) -> NDArray[np.uint8]:
    """A camera that glides over a road: sky, hills at two depths, lane marks, a box and a ball.

    Everything moves with time, nearer things faster, and nothing is random.

    Returns:
        uint8 RGB [frames, height, width, 3].
    """
    return np.stack([_scene(index / 24, height, width) for index in range(frames)])


def _scene(seconds: float, height: int, width: int) -> NDArray[np.uint8]:
    """One frame [H, W, 3] of the clip."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x / height, y / height  # the unit is the height of the frame
    ground = y > 0.55
    picture = _mix((96, 150, 214), (232, 226, 204), np.clip(y / 0.55, 0, 1))  # sky
    for depth, base, colour in ((0.15, 0.40, (122, 140, 156)), (0.35, 0.48, (88, 116, 96))):
        phase = 6 * (x + depth * seconds)
        ridge = base + 0.05 * np.sin(phase) + 0.03 * np.sin(2.7 * phase + 1)
        picture[(y > ridge) & ~ground] = colour
    distance = 0.08 / np.maximum(y - 0.55, 1e-3)  # of the ground under each pixel
    picture[ground] = _mix((70, 72, 78), (128, 126, 120), np.clip(distance / 2, 0, 1))[ground]
    across = (x - 0.5 * width / height) * distance
    mark = (np.abs(across) < 0.012) & ((distance * 2 + seconds * 3) % 1 < 0.5)
    edge = np.abs(np.abs(across) - 0.16) < 0.008
    picture[ground & (mark | edge)] = (238, 232, 210)
    box = (np.abs(x - 0.35 - 0.45 * seconds) < 0.09) & (np.abs(y - 0.62) < 0.07)
    picture[box] = (196, 62, 48)
    bounce = 0.74 - 0.16 * abs(np.sin(np.pi * (seconds * 1.5 + 0.2)))
    offset = np.hypot(x - 1.15 + 0.3 * seconds, y - bounce)
    ball = offset < 0.08
    picture[ball] = _mix((250, 214, 92), (176, 120, 24), np.clip(offset / 0.08, 0, 1))[ball]
    return np.round(picture).astype(np.uint8)


def _mix(
    first: tuple[int, int, int], second: tuple[int, int, int], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Colours between two, [H, W, 3], by a weight [H, W] in [0, 1]."""
    start, end = np.array(first, np.float64), np.array(second, np.float64)  # [3]
    mixed: NDArray[np.float64] = start + weight[..., None] * (end - start)
    return mixed
