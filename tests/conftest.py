"""Options of the whole suite."""

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
