from pathlib import Path

import pytest

from cosmos_triton.demo.random_weights import init_random


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint folder. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("checkpoint")
    init_random("tiny", folder, seed=0)
    return folder
