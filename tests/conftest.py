"""Options and folders of the whole suite."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parity-dir",
        type=Path,
        default=REPOSITORY / "tests" / "data" / "parity",
        help="directory of parity files (.safetensors with .json beside) that tests/parity checks",
    )


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `init-random --size tiny` writes; not to be changed."""
    from cosmos_triton.demo.random_weights import init_random  # seconds of torch

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
