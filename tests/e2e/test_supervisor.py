"""A server that heals, refuses, drains and leaves nothing behind: the real one, with real deaths."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cosmos_client import CosmosClient, RequestCancelled, ServerUnavailable, World
from support.supervised import Supervised, supervised

pytestmark = pytest.mark.triton

FAST = "cosmos_base_fast"
RECOVERY_S = 30.0  # what an operator is promised; a loaded machine gets three times as long here


@pytest.fixture(scope="module")
def server(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    with supervised(checkpoints, tmp_path_factory.mktemp("supervised")) as running:
        yield running


@pytest.fixture
def client(server: Supervised) -> Iterator[CosmosClient]:
    with CosmosClient(server.grpc_url, timeout_s=180) as connected:
        yield connected


@pytest.fixture(scope="module")
def alone(server: Supervised, clip: bytes) -> np.ndarray:
    """Tokens of seed 5, with nobody else in the server."""
    with CosmosClient(server.grpc_url, timeout_s=180) as client:
        return client.generate(clip, model=FAST, seed=5).tokens


def in_background(call: Callable[[], World]) -> "Future[World]":
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["media_decoder", "ar_sampler", "video_guardrail"])
def test_a_stage_that_dies_comes_back(
    server: Supervised, client: CosmosClient, clip: bytes, alone: np.ndarray, stage: str
) -> None:
    before = server.metric("cosmos_stage_recoveries_total")
    os.kill(server.stages(stage)[0], signal.SIGKILL)
    server.until(f"recovering {stage}", 5)
    server.until("ready", 3 * RECOVERY_S)
    assert server.metric("cosmos_stage_recoveries_total") == before + 1
    np.testing.assert_array_equal(client.generate(clip, model=FAST, seed=5).tokens, alone)


def test_a_server_of_its_own_for_what_ends_it(checkpoints: Path, tmp_path: Path, clip: bytes) -> None:
    """A video in a dying stage is told so; a stage that hangs is ended; too many deaths end all."""
    with supervised(checkpoints, tmp_path) as server, CosmosClient(server.grpc_url, timeout_s=120) as client:
        lost = in_background(lambda: client.generate(clip, model=FAST, seed=1))
        until(lambda: server.metric("cosmos_ar_active_videos") == 1)
        began = time.monotonic()
        os.kill(server.stages("ar_sampler")[0], signal.SIGKILL)
        with pytest.raises(ServerUnavailable, match="ar_sampler died with the request inside"):
            lost.result(30)
        assert time.monotonic() - began < 10
        assert server.metric("cosmos_requests_lost_total") == 1
        server.until("ready", 3 * RECOVERY_S)

        os.kill(server.stages("video_decoder")[0], signal.SIGSTOP)
        server.until("recovering video_decoder", 15)
        server.until("ready", 3 * RECOVERY_S)
        client.generate(clip, model=FAST, seed=1)

        for stage in ("media_encoder", "media_decoder"):
            os.kill(server.stages(stage)[0], signal.SIGKILL)
        assert server.process.wait(60) == 70
        assert "4 stage processes died" in server.log_end()


def test_a_full_server_refuses_at_once_and_a_client_that_leaves_makes_room(
    checkpoints: Path, tmp_path: Path, clip: bytes
) -> None:
    arguments = (f"--ensemble={FAST}", "--max-requests=1")
    with (
        supervised(checkpoints, tmp_path, *arguments) as server,
        CosmosClient(server.grpc_url, timeout_s=120) as other,
    ):
        client = CosmosClient(server.grpc_url, timeout_s=120)
        left = in_background(lambda: client.generate(clip, model=FAST, seed=1))
        until(lambda: server.metric("cosmos_ar_active_videos") == 1)
        began = time.monotonic()
        with pytest.raises(ServerUnavailable, match="the server is full: it has 1 requests"):
            other.generate(b"not even looked at", model=FAST)
        assert time.monotonic() - began < 2
        client.close()
        with pytest.raises(RequestCancelled):
            left.result(30)
        until(lambda: server.metric("cosmos_ar_active_videos") == 0, 5)
        until(lambda: server.metric("cosmos_requests_in_flight") == 0, 5)
        other.generate(clip, model=FAST, seed=1)


def test_a_server_told_to_stop_finishes_what_it_has(
    checkpoints: Path, tmp_path: Path, clip: bytes, alone: np.ndarray
) -> None:
    with supervised(checkpoints, tmp_path) as server, CosmosClient(server.grpc_url, timeout_s=180) as client:
        os.kill(server.stages("media_encoder")[0], signal.SIGKILL)  # also after a death
        server.until("recovering media_encoder", 5)
        server.until("ready", 3 * RECOVERY_S)
        videos = [in_background(partial(client.generate, clip, model=FAST, seed=seed)) for seed in (5, 6, 7)]
        until(lambda: server.metric("cosmos_requests_in_flight") == 3)
        descendants = server.descendants()
        server.process.send_signal(signal.SIGTERM)
        server.until("draining", 5)
        with pytest.raises(ServerUnavailable, match="the server is draining"):
            client.generate(clip, model=FAST)
        np.testing.assert_array_equal(videos[0].result(180).tokens, alone)
        assert [len(video.result(180).video) > 1000 for video in videos] == [True] * 3
        assert server.process.wait(60) == 0, server.log_end()
        assert [pid for pid in descendants if Path(f"/proc/{pid}").exists()] == []
        assert not list(Path("/dev/shm").glob(f"cosmos-triton-alive-{server.process.pid}-*"))


def test_a_tritonserver_that_is_killed_leaves_no_stage_behind(
    checkpoints: Path, tmp_path: Path, clip: bytes
) -> None:
    with supervised(checkpoints, tmp_path) as server, CosmosClient(server.grpc_url, timeout_s=60) as client:
        running = in_background(lambda: client.generate(clip, model=FAST, seed=1))
        until(lambda: server.metric("cosmos_ar_active_videos") == 1)
        descendants = server.descendants()
        (triton,) = [pid for pid in descendants if "tritonserver" in Path(f"/proc/{pid}/comm").read_text()]
        os.kill(triton, signal.SIGKILL)
        assert server.process.wait(60) == 1
        assert "ended by itself" in server.log_end()
        with pytest.raises(ServerUnavailable):
            running.result(30)
        assert [pid for pid in descendants if Path(f"/proc/{pid}").exists()] == []
