"""Every parity file of `--parity-dir` against the checks of its kind."""

from collections.abc import Callable
from pathlib import Path

import autoregressive_checks
import diffusion_checks
import preprocess_checks
import pytest
import tokenizer_checks
from files import INFORMATIONAL, IO, KINDS, ParityFile, discover

CHECKS: dict[str, Callable[[ParityFile], None]] = {
    **autoregressive_checks.CHECKS,
    **tokenizer_checks.CHECKS,
    **diffusion_checks.CHECKS,
    **preprocess_checks.CHECKS,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "parity_file" in metafunc.fixturenames:
        files = discover(metafunc.config.getoption("--parity-dir"))
        metafunc.parametrize(
            "parity_file", files, ids=[f"{file.kind or 'unknown'}-{file.path.name}" for file in files]
        )


def test_file_agrees(parity_file: ParityFile) -> None:
    if parity_file.problem:
        pytest.fail(parity_file.problem)
    if parity_file.kind is None:
        if any(name.startswith(IO) for name in parity_file.tensors):
            pytest.fail(f"{parity_file.path.name} holds numbers to check (io.*), but no check knows its kind")
        pytest.skip(f"{parity_file.path.name} holds nothing to check")
    if parity_file.kind in INFORMATIONAL:
        pytest.skip(f"{parity_file.path.name} is informational: numbers in half precision")
    CHECKS[parity_file.kind](parity_file)


def test_directory_holds_files(pytestconfig: pytest.Config) -> None:
    directory: Path = pytestconfig.getoption("--parity-dir")
    assert discover(directory), f"{directory} holds no parity file"


def test_every_kind_has_a_check() -> None:
    assert set(CHECKS) == set(KINDS) - set(INFORMATIONAL)
