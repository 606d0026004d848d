"""Every parity file of `--parity-dir` against the checks of its kind."""

from pathlib import Path

import pytest

from support.parity_checks import CHECKS, check_file
from support.parity_files import INFORMATIONAL, KINDS, ParityFile, discover


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "parity_file" in metafunc.fixturenames:
        files = discover(metafunc.config.getoption("--parity-dir"))
        metafunc.parametrize(
            "parity_file", files, ids=[f"{file.kind or 'unknown'}-{file.path.name}" for file in files]
        )


def test_file_agrees(parity_file: ParityFile) -> None:
    check_file(parity_file)


def test_directory_holds_files(pytestconfig: pytest.Config) -> None:
    directory: Path = pytestconfig.getoption("--parity-dir")
    assert discover(directory), f"{directory} holds no parity file"


def test_every_kind_has_a_check() -> None:
    assert set(CHECKS) == set(KINDS) - set(INFORMATIONAL)
