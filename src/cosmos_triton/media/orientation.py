"""The eight ways in which a picture can be stored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """What makes stored pixels upright: rows and columns changed, then mirrored."""

    transposed: bool = False  # rows become columns
    mirrored: bool = False  # left to right
    upside_down: bool = False

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3] as stored → [H, W, 3] or [W, H, 3] as shown, a view."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.upside_down else 1)
        columns = slice(None, None, -1 if self.mirrored else 1)
        return pixels[rows, columns]


AS_STORED = Orientation()

# By the number that EXIF (2.32, 4.6.4) gives them.
EXIF = {
    1: AS_STORED,
    2: Orientation(mirrored=True),
    3: Orientation(mirrored=True, upside_down=True),
    4: Orientation(upside_down=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, mirrored=True),
    7: Orientation(transposed=True, mirrored=True, upside_down=True),
    8: Orientation(transposed=True, upside_down=True),
}
