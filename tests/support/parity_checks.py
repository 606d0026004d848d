"""One parity file against the check of its kind."""

from collections.abc import Callable

import pytest

from support import autoregressive_checks, diffusion_checks, preprocess_checks, tokenizer_checks
from support.parity_files import INFORMATIONAL, IO, ParityFile

CHECKS: dict[str, Callable[[ParityFile], None]] = {
    **autoregressive_checks.CHECKS,
    **tokenizer_checks.CHECKS,
    **diffusion_checks.CHECKS,
    **preprocess_checks.CHECKS,
}


def check_file(parity_file: ParityFile) -> None:
    if parity_file.problem:
        pytest.fail(parity_file.problem)
    if parity_file.kind is None:
        if any(name.startswith(IO) for name in parity_file.tensors):
            pytest.fail(f"{parity_file.path.name} holds numbers to check (io.*), but no check knows its kind")
        pytest.skip(f"{parity_file.path.name} holds nothing to check")
    if parity_file.kind in INFORMATIONAL:
        pytest.skip(f"{parity_file.path.name} is informational: numbers in half precision")
    CHECKS[parity_file.kind](parity_file)
