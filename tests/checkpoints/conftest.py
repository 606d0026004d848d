"""A tiny checkpoint folder, and copies of it to damage."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cosmos_triton.demo.random_weights import init_random


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `init-random --size tiny` writes; not to be changed."""
    directory = tmp_path_factory.mktemp("checkpoints")
    init_random("tiny", directory)
    return directory


@pytest.fixture
def copied(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies directories of the tiny folder (all of them without arguments) to a folder of the test's own."""

    def copy(*names: str) -> Path:
        folder = tmp_path / "folder"
        for name in names or sorted(path.name for path in tiny.iterdir()):
            shutil.copytree(tiny / name, folder / name)
        return folder

    return copy
