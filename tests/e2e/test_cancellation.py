"""Withdrawn and overdue requests end at once and free their slot; others are untouched."""

import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cosmos_client import CosmosClient, RequestCancelled
from cosmos_triton.server import loopback
from cosmos_triton.server.launch import Server

pytestmark = pytest.mark.triton

FAST = "cosmos_base_fast"


def gauge(server: Server, name: str, model: str = "tiny") -> float:
    lines = loopback.read(server.metrics_url, timeout_s=5).decode().splitlines()
    return next(
        (float(line.split()[-1]) for line in lines if line.startswith(f'{name}{{model="{model}"')), 0.0
    )


def videos_done(server: Server) -> float:
    """Requests the engines have answered, however they ended."""
    lines = loopback.read(server.metrics_url, timeout_s=5).decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("cosmos_ar_videos_total{"))


def wait_for_active(server: Server, count: int) -> None:
    deadline = time.monotonic() + 20
    while gauge(server, "cosmos_ar_active_videos") != count:
        assert time.monotonic() < deadline, f"never saw {count} active videos"
        time.sleep(0.02)


def test_a_cancelled_request_ends_and_its_neighbour_does_not(
    server: Server, client: CosmosClient, clip: bytes
) -> None:
    expected = client.generate(clip, model=FAST, seed=11).tokens
    ended: list[BaseException] = []

    def withdrawn() -> None:
        try:
            client.generate(clip, model=FAST, seed=12, request_id="to-be-withdrawn")
        except RequestCancelled as error:
            ended.append(error)

    kept: list[np.ndarray] = []
    threads = [
        threading.Thread(target=withdrawn),
        threading.Thread(target=lambda: kept.append(client.generate(clip, model=FAST, seed=11).tokens)),
    ]
    for thread in threads:
        thread.start()
    wait_for_active(server, 2)
    client.cancel("to-be-withdrawn")
    for thread in threads:
        thread.join(60)
    assert len(ended) == 1
    assert np.array_equal(kept[0], expected)
    wait_for_active(server, 0)


def test_the_requests_own_timeout_is_enforced_by_the_engine(server: Server, clip: bytes) -> None:
    media = triton.InferInput("media", [1], "BYTES")
    media.set_data_from_numpy(np.array([clip], dtype=np.object_))
    with (
        triton.InferenceServerClient(server.grpc_url) as plain,
        pytest.raises(InferenceServerException) as overdue,
    ):
        plain.infer(FAST, [media], timeout=200_000, client_timeout=60)
    assert "UNAVAILABLE" in str(overdue.value.status())
    assert "limit of 0.2 s" in overdue.value.message()
    wait_for_active(server, 0)


def test_a_cancellation_that_is_ahead_of_its_request_still_counts(
    server: Server, client: CosmosClient, clip: bytes
) -> None:
    client.cancel("withdrawn-early")
    done = videos_done(server)
    with pytest.raises(RequestCancelled):
        client.generate(clip, model=FAST, request_id="withdrawn-early")
    assert videos_done(server) == done, "the engine ran a request that was withdrawn before it arrived"
