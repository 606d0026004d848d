"""One real tritonserver, profile cpu, with the tiny models, for the whole session."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosmos_client import CosmosClient
from cosmos_triton.demo.sample_clip import synthetic_clip
from cosmos_triton.media import encode_mp4
from cosmos_triton.server.launch import Server, ServerSettings, serving


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The tiny checkpoint with its ONNX graphs, made by the operator's own commands."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run = [sys.executable, "-m"]
    subprocess.run(
        [*run, "cosmos_triton", "init-random", "--size", "tiny", "--checkpoint-dir", folder], check=True
    )
    subprocess.run([*run, "cosmos_triton", "export", "--checkpoint-dir", folder, "--onnx-only"], check=True)
    return folder


@pytest.fixture(scope="session")
def server(checkpoints: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All four ensembles, ready."""
    settings = ServerSettings.on_free_ports(
        model_repository=repository / "model_repository", checkpoint_dir=checkpoints, profile="cpu"
    )
    log = tmp_path_factory.mktemp("server") / "server.log"
    with log.open("wb") as file:
        try:
            with serving(settings, file) as running:
                yield running
        finally:
            print(f"\n--- end of the server's log\n{log.read_text()[-4000:]}")


@pytest.fixture
def client(server: Server) -> Iterator[CosmosClient]:
    """A client of the session's server."""
    with CosmosClient(server.grpc_url, timeout_s=120) as connected:
        yield connected


@pytest.fixture(scope="session")
def clip() -> bytes:
    """A small MP4 of moving shapes."""
    return encode_mp4(synthetic_clip())
