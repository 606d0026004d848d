"""Faces in a video: found frame by frame, followed through time, made unrecognisable.

A detector misses a face now and then; one clear frame is enough to recognise someone. So boxes of
neighbouring frames that overlap are joined to a track, its gaps are filled and its ends extended.
"""

import itertools
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cosmos_triton.errors import CheckpointError

_MARGIN = 0.2  # of the box, on every side: detectors mark eyes to mouth
_BLOCKS = 6  # of a pixelated face, each way
_SAME_FACE = 0.2  # intersection over union of boxes in neighbouring frames
_LONGEST_GAP = 8  # frames


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; right and bottom are outside."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        if width <= 0 or height <= 0:
            return 0.0
        both = width * height
        return both / (self._area + other._area - both)

    def towards(self, other: "Box", part: float) -> "Box":
        """The box that lies `part` of the way to another."""
        mine, theirs = self._edges, other._edges
        return Box(*(a + part * (b - a) for a, b in zip(mine, theirs, strict=True)))

    def grown(self, margin: float) -> "Box":
        """The box with `margin` of its width and height added on each side."""
        x, y = margin * (self.right - self.left), margin * (self.bottom - self.top)
        return Box(self.left - x, self.top - y, self.right + x, self.bottom + y)

    @property
    def _edges(self) -> tuple[float, float, float, float]:
        return self.left, self.top, self.right, self.bottom

    @property
    def _area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


Track = dict[int, Box]  # by frame number


class FaceDetector(Protocol):
    """Finds faces."""

    def detect(self, frames: NDArray[np.uint8]) -> list[list[Box]]:
        """Boxes of each frame of uint8 RGB [T, H, W, 3]."""


@dataclass(frozen=True)
class TrackedFaceBlur:
    """Pixelates every face that `detector` finds, and in the frames around where it finds it.

    Args:
        every: the detector looks at every n-th frame (and the last).
    """

    detector: FaceDetector
    every: int = 1
    name: str = "face_blur"

    def blur(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
        """The frames with faces pixelated (a copy, if there are any) and the number of faces."""
        looked_at = sorted({*range(0, len(frames), self.every), len(frames) - 1})
        found: list[list[Box]] = [[] for _ in frames]
        for index, boxes in zip(looked_at, self.detector.detect(frames[looked_at]), strict=True):
            found[index] = boxes
        tracks = follow(found)
        if not tracks:
            return frames, 0
        blurred = frames.copy()
        for track in tracks:
            for index, box in filled(track, len(frames), self.every).items():
                pixelate(blurred[index], box.grown(_MARGIN))
        return blurred, len(tracks)


def follow(boxes: Sequence[Sequence[Box]]) -> list[Track]:
    """Boxes by frame to tracks: a box continues the track whose last box it overlaps most."""
    tracks: list[Track] = []
    for index, found in enumerate(boxes):
        for box in found:
            open_tracks = [t for t in tracks if index not in t and index - max(t) <= _LONGEST_GAP]
            best = max(open_tracks, key=lambda t: t[max(t)].overlap(box), default=None)
            if best is not None and best[max(best)].overlap(box) >= _SAME_FACE:
                best[index] = box
            else:
                tracks.append({index: box})
    return tracks


def filled(track: Track, frames: int, margin: int = 1) -> Track:
    """A track with boxes in its gaps, and in `margin` more frames at either end."""
    known = sorted(track)
    complete = dict(track)
    for before, after in itertools.pairwise(known):
        for index in range(before + 1, after):
            complete[index] = track[before].towards(track[after], (index - before) / (after - before))
    for step in range(1, margin + 1):
        for end, beyond in ((known[0], known[0] - step), (known[-1], known[-1] + step)):
            if 0 <= beyond < frames:
                complete[beyond] = track[end]
    return complete


def pixelate(frame: NDArray[np.uint8], box: Box) -> None:
    """Replace a box of a frame [H, W, 3] by a few blocks of its mean colours, in place."""
    height, width, _ = frame.shape
    left, right = max(0, round(box.left)), min(width, round(box.right))
    top, bottom = max(0, round(box.top)), min(height, round(box.bottom))
    if left >= right or top >= bottom:
        return
    region = frame[top:bottom, left:right]
    blocks = (min(_BLOCKS, right - left), min(_BLOCKS, bottom - top))
    small = cv2.resize(region, blocks, interpolation=cv2.INTER_AREA)
    frame[top:bottom, left:right] = cv2.resize(
        small, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST
    )


@dataclass(frozen=True)
class _Look:
    """One look at a frame: a cascade, and the turn and the mirror in which it looks."""

    file: str
    neighbours: int  # overlapping hits that make a face
    angle: float = 0  # degrees
    mirrored: bool = False


_FRONTAL, _PROFILE = "haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml"
_LOOKS = (
    _Look(_FRONTAL, 4),
    _Look(_FRONTAL, 4, angle=-25),  # heads are often tilted
    _Look(_FRONTAL, 4, angle=25),
    _Look(_PROFILE, 6),  # knows faces that look left
    _Look(_PROFILE, 6, mirrored=True),
)
_LONGER_SIDE = 480  # pixels at which faces are looked for
_SMALLEST = 20  # pixels of a face at that size


class _Cascades(threading.local):
    """The cascades by file name, each thread's own: a classifier holds the picture it looks at."""

    def __init__(self, directory: Path) -> None:  # runs once more in every thread that looks
        self.by_file = {file: _cascade(directory / file) for file in (_FRONTAL, _PROFILE)}


class OpenCVFaces:
    """The Haar cascades that OpenCV ships: frontal faces and profiles, no weights to download.

    Faces of fewer than 20 pixels in a frame of 480 are not found, nor are covered ones. The looks at
    all frames are spread over the cores; what is found does not depend on how many there are.

    Args:
        directory: of the cascades' files.

    Raises:
        CheckpointError: a cascade is missing or damaged.
    """

    def __init__(self, directory: Path = Path(cv2.data.haarcascades)) -> None:  # type: ignore[attr-defined]
        self._cascades = _Cascades(directory)
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "faces")

    def detect(self, frames: NDArray[np.uint8]) -> list[list[Box]]:
        """Boxes of each frame; one that several looks find is there once."""
        _, height, width, _ = frames.shape
        scale = min(1.0, _LONGER_SIDE / max(height, width))
        greys = self._pool.map(lambda frame: _grey(frame, scale), frames)
        looks = [(look, grey) for grey in greys for look in _LOOKS]
        found = self._pool.map(lambda pair: self._look(*pair), looks)  # in the order of `looks`
        return [_distinct(itertools.islice(found, len(_LOOKS)), scale) for _ in frames]

    def _look(self, look: _Look, grey: cv2.typing.MatLike) -> list[Box]:
        """Boxes that one look finds in a grey picture, in the picture's own coordinates."""
        height, width = grey.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), look.angle, 1.0)  # [2, 3]
        if look.angle:
            grey = cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        if look.mirrored:
            grey = cv2.flip(grey, 1)
        back = cv2.invertAffineTransform(turn)
        hits = self._cascades.by_file[look.file].detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=look.neighbours, minSize=(_SMALLEST, _SMALLEST)
        )
        found: list[Box] = []
        for left, top, wide, high in sorted(map(tuple, hits)):  # OpenCV's own threads race for an order
            left = width - left - wide if look.mirrored else left
            x, y = back @ np.array([left + wide / 2, top + high / 2, 1.0])
            found.append(Box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2))
        return found


def _cascade(path: Path) -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier()
    try:
        loaded = path.is_file() and cascade.load(str(path))
    except cv2.error:
        loaded = False
    if not loaded:
        raise CheckpointError(
            f"the face detector {path} is missing or damaged: reinstall opencv-python-headless"
        )
    return cascade


def _grey(frame: NDArray[np.uint8], scale: float) -> cv2.typing.MatLike:
    """[H, W, 3] → [scale H, scale W]."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if scale == 1:
        return grey
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _distinct(found: Iterable[Sequence[Box]], scale: float) -> list[Box]:
    """The boxes of one frame's looks, without those that overlap an earlier one, in the frame's pixels."""
    boxes: list[Box] = []
    for box in itertools.chain.from_iterable(found):
        if all(box.overlap(other) < _SAME_FACE for other in boxes):
            boxes.append(box)
    return [Box(b.left / scale, b.top / scale, b.right / scale, b.bottom / scale) for b in boxes]
