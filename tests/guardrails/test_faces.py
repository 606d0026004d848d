"""Face blur on drawn boxes, on a photograph, and through time."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cosmos_triton.errors import CheckpointError
from cosmos_triton.guardrails.faces import Box, OpenCVFaces, TrackedFaceBlur, filled, follow, pixelate

PICTURES = files("skimage") / "data"  # scikit-image's own test pictures

FACE = Box(150, 30, 300, 210)  # of the astronaut, generously


@dataclass(frozen=True)
class Finds:
    """A detector with fixed answers."""

    boxes: list[list[Box]]

    def detect(self, frames: np.ndarray) -> list[list[Box]]:
        assert len(frames) == len(self.boxes)
        return self.boxes


def box(left: float, top: float = 10, size: float = 20) -> Box:
    return Box(left, top, left + size, top + size)


def picture(name: str) -> np.ndarray:
    with as_file(PICTURES / name) as path, Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return picture("astronaut.png")


@pytest.fixture(scope="module")
def opencv() -> TrackedFaceBlur:
    return TrackedFaceBlur(OpenCVFaces(), every=3)


def test_a_face_is_made_unrecognisable_and_the_rest_is_kept(astronaut: np.ndarray, opencv: TrackedFaceBlur):
    blurred, count = opencv.blur(astronaut[None])
    assert count == 1
    changed = (blurred[0] != astronaut).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= FACE.top
    assert rows.max() <= FACE.bottom
    assert columns.min() >= FACE.left
    assert columns.max() <= FACE.right
    face = blurred[0, 80:150, 190:255].reshape(-1, 3)
    assert len(np.unique(face, axis=0)) <= 36  # a handful of blocks are left of it
    again, found = opencv.blur(blurred)
    assert found == 0
    assert again is blurred


@pytest.mark.parametrize(
    "name",
    [
        "coffee.png",
        "chelsea.png",
        "brick.png",
        "grass.png",
        "gravel.png",
        "rocket.jpg",
        "text.png",
        "moon.png",
    ],
)
def test_pictures_without_faces_stay(name: str, opencv: TrackedFaceBlur):
    frames = picture(name)[None]
    same, count = opencv.blur(frames)
    assert count == 0
    assert same is frames


@pytest.mark.parametrize("angle", [-20, 20])
def test_a_tilted_head(astronaut: np.ndarray, opencv: TrackedFaceBlur, angle: float):
    tilted = np.array(Image.fromarray(astronaut[:256, 64:384]).rotate(angle, Image.Resampling.BICUBIC))
    blurred, count = opencv.blur(tilted[None])
    assert count >= 1
    assert opencv.blur(blurred)[1] == 0


def test_a_face_in_a_moving_picture(astronaut: np.ndarray, opencv: TrackedFaceBlur):
    clip = np.stack([astronaut[:160, 40 + 3 * index : 296 + 3 * index] for index in range(17)])
    blurred, count = opencv.blur(clip)
    assert count == 1
    assert all((a != b).any() for a, b in zip(clip, blurred, strict=True))
    assert opencv.blur(blurred)[1] == 0


def test_the_input_is_not_written_to(astronaut: np.ndarray, opencv: TrackedFaceBlur):
    frames = astronaut[None].copy()
    frames.flags.writeable = False
    blurred, _ = opencv.blur(frames)
    assert not np.array_equal(blurred, frames)
    assert np.array_equal(frames[0], astronaut)


def test_a_face_that_moves_is_one_face():
    assert len(follow([[box(10)], [box(14)], [box(18)], [box(22)]])) == 1


def test_two_faces_are_two():
    assert len(follow([[box(10), box(100)], [box(101), box(11)]])) == 2


def test_a_far_jump_is_another_face():
    assert len(follow([[box(10)], [box(200)]])) == 2


def test_frames_in_which_the_detector_misses_are_blurred_too():
    frames = np.random.default_rng(0).integers(0, 256, (8, 60, 120, 3), np.uint8)
    found = [[], [box(40)], [], [], [box(46)], [], [], []]
    blurred, count = TrackedFaceBlur(Finds(found)).blur(frames)
    changed = [not np.array_equal(a, b) for a, b in zip(frames, blurred, strict=True)]
    assert count == 1
    assert changed == [True, True, True, True, True, True, False, False]


def test_between_the_frames_looked_at():
    frames = np.random.default_rng(0).integers(0, 256, (10, 60, 120, 3), np.uint8)
    found = [[], [box(40)], [], []]  # of frames 0, 4, 8 and the last
    blurred, count = TrackedFaceBlur(Finds(found), every=4).blur(frames)
    changed = [not np.array_equal(a, b) for a, b in zip(frames, blurred, strict=True)]
    assert count == 1
    assert changed == [True] * 9 + [False]


def test_a_gap_is_crossed_in_a_straight_line():
    track = filled({0: box(0), 4: box(40)}, 5)
    assert [track[index].left for index in range(5)] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("outside", [Box(-30, -30, -5, -5), Box(500, 0, 520, 20), Box(10, 10, 10, 30)])
def test_boxes_outside_the_frame_do_nothing(outside: Box):
    frame = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    before = frame.copy()
    pixelate(frame, outside)
    assert np.array_equal(frame, before)


def test_a_box_over_the_edge_is_cut():
    frame = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    pixelate(frame, Box(-10, -10, 20, 20))
    assert len(np.unique(frame[:20, :20].reshape(-1, 3), axis=0)) <= 36


def test_a_missing_or_damaged_cascade_does_not_load(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"haarcascade_frontalface_alt2\.xml is missing or damaged"):
        OpenCVFaces(tmp_path)
    (tmp_path / "haarcascade_frontalface_alt2.xml").write_text("<xml")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        OpenCVFaces(tmp_path)


def test_what_is_found_does_not_depend_on_the_cores(astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    frames = np.stack([astronaut[:256, 8 * index : 8 * index + 320] for index in range(5)])
    found = []
    for cores in (1, 7):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        found.append(OpenCVFaces().detect(frames))
    assert found[0] == found[1]
    lefts = [boxes[0].left for boxes in found[0]]  # frames keep their order: the face moves to the left
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[0] - lefts[-1] > 20
