"""A real tritonserver with a peer in place of the networks, which answers as the media tells it to."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosmos_client import CosmosClient
from cosmos_triton.server.launch import Server, ServerSettings, serving

MODELS = Path(__file__).parent / "model_repository"
RECORDS_VARIABLE = "COSMOS_PEER_RECORDS"


class PeerSettings(ServerSettings):
    """A server of the models beside this file."""

    @property
    def models(self) -> list[str]:
        return sorted(folder.name for folder in MODELS.iterdir())


@dataclass(frozen=True)
class Peer:
    """The running peer and what it has recorded."""

    url: str
    records: Path

    def ids(self, event: str) -> set[str]:
        """Request ids for which `event` was recorded: started, cancel or ended."""
        return {path.stem for path in self.records.glob(f"*.{event}")}

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until `condition` holds; fails after 10 s."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, f"waited 10 s for {what}"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def peer_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    records = tmp_path_factory.mktemp("records")
    settings = PeerSettings.on_free_ports(
        model_repository=MODELS, checkpoint_dir=records, ensembles=(), exit_timeout_s=2
    )
    log = tmp_path_factory.mktemp("peer") / "server.log"
    os.environ[RECORDS_VARIABLE] = str(records)
    try:
        with log.open("wb") as file, serving(settings, file, ready_timeout_s=60) as server:
            yield server, records
    finally:
        del os.environ[RECORDS_VARIABLE]
        print(f"\n--- end of the peer's log\n{log.read_text()[-3000:]}")


@pytest.fixture
def peer(peer_server: tuple[Server, Path]) -> Peer:
    """The session's peer, its records empty."""
    server, records = peer_server
    for path in records.iterdir():
        path.unlink()
    return Peer(server.grpc_url, records)


@pytest.fixture
def client(peer: Peer) -> Iterator[CosmosClient]:
    """A client of the peer."""
    with CosmosClient(peer.url, timeout_s=20) as connected:
        yield connected
