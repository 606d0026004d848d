"""The client against a real tritonserver: requests, answers, errors, deadlines, cancellation."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cosmos_client import (
    BlockedByGuardrail,
    CosmosClient,
    CosmosClientError,
    DeadlineExceeded,
    ProtocolError,
    RequestCancelled,
    RequestRefused,
    ServerFault,
    ServerUnavailable,
    UsageError,
    World,
)

if TYPE_CHECKING:
    from conftest import Peer
    from cosmos_triton.server.launch import Server

pytestmark = pytest.mark.triton


def test_a_world_holds_the_contracts_outputs(client: CosmosClient) -> None:
    world = client.generate(b"ok", seed=7)
    assert world.video == b"\0video of ok\0"
    np.testing.assert_array_equal(world.tokens, np.arange(30, dtype=np.int32).reshape(5, 2, 3) + 7)
    assert world.tokens.dtype == np.int32
    assert world.report["seed"] == 7
    assert world.frames is None


def test_every_request_has_its_own_id_and_tells_its_time_limit(client: CosmosClient) -> None:
    first, second = client.generate(b"ok"), client.generate(b"ok")
    assert first.report["request_id"] == first.request_id
    assert first.request_id != second.request_id
    assert first.report["timeout_us"] == 20_000_000
    assert client.generate(b"ok", request_id="mine").report["request_id"] == "mine"


def test_the_longest_time_limit_is_one_that_works(peer: "Peer") -> None:
    with CosmosClient(peer.url, timeout_s=7 * 24 * 3600) as client:
        assert client.generate(b"ok").report["timeout_us"] == 604_800_000_000
        assert client.status(timeout_s=7 * 24 * 3600).ready


def test_what_is_not_said_is_not_sent(client: CosmosClient) -> None:
    report = client.generate(b"ok").report
    assert [report[name] for name in ("prompt", "num_input_frames", "temperature", "top_p")] == [None] * 4


def test_every_option_arrives(client: CosmosClient) -> None:
    report = client.generate(
        b"ok", prompt="el robot güira ⟳", seed=2**40, temperature=0.5, top_p=0.25, num_input_frames=9
    ).report
    assert (report["prompt"], report["seed"], report["num_input_frames"]) == ("el robot güira ⟳", 2**40, 9)
    assert (report["temperature"], report["top_p"]) == (0.5, 0.25)


def test_frames_travel_only_when_wanted(client: CosmosClient) -> None:
    asked = client.generate(b"ok", model="world").report["outputs"]  # the stage sees what is asked for
    assert asked == ["report", "tokens", "video"]
    frames = client.generate(b"ok", want_frames=True).frames
    assert frames is not None
    assert frames.shape == (33, 32, 48, 3)
    assert frames.dtype == np.uint8


def test_media_of_many_megabytes_and_from_a_path(client: CosmosClient, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"ok" + b"\n" * 8_000_000)  # gRPC's default limit is 4 MB
    world = client.generate(clip)
    assert len(world.video) == 8_000_002 + len(b"\0video of \0")


@pytest.mark.parametrize(
    ("media", "kind", "message"),
    [
        (b"INVALID_ARG top_p 3.0 is not in (0, 1]", RequestRefused, "top_p 3.0 is not in (0, 1]"),
        (b"UNAVAILABLE the queue is full", ServerUnavailable, "the queue is full"),
        (b"INTERNAL see the log", ServerFault, "the server failed (INTERNAL): see the log"),
        (b"CANCELLED gone", RequestCancelled, "the request was cancelled"),
    ],
)
def test_errors_keep_their_kind_and_message(
    client: CosmosClient, media: bytes, kind: type[CosmosClientError], message: str
) -> None:
    with pytest.raises(CosmosClientError) as caught:
        client.generate(media)
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_a_guardrails_refusal_says_which_and_why(client: CosmosClient) -> None:
    with pytest.raises(BlockedByGuardrail) as caught:
        client.generate(b"INVALID_ARG blocked by prompt_guardrail (blocklist): the prompt names a weapon")
    blocked = caught.value
    assert (blocked.stage, blocked.category) == ("prompt_guardrail", "blocklist")
    assert blocked.reason == "the prompt names a weapon"


@pytest.mark.parametrize("media", [b"no-video", b"no-report", b"float-tokens"])
def test_an_answer_outside_the_contract_is_a_protocol_error(client: CosmosClient, media: bytes) -> None:
    with pytest.raises(ProtocolError):
        client.generate(media)


def test_an_unknown_model_is_unavailable(client: CosmosClient) -> None:
    with pytest.raises(ServerUnavailable, match="cosmos_nowhere"):
        client.generate(b"ok", model="cosmos_nowhere")


def test_tritons_http_port_is_recognised(peer_server: "tuple[Server, Path]") -> None:
    url = peer_server[0].http_url
    with (
        CosmosClient(url) as client,
        pytest.raises(ServerUnavailable, match=rf"^{url} .*not speak gRPC.*gRPC port is 8001"),
    ):
        client.generate(b"ok")


def test_the_fast_ensemble_leaves_the_diffusion_decoder_out(client: CosmosClient) -> None:
    client.generate(b"ok", disable_diffusion_decoder=True)  # cosmos_base_fast is there
    with pytest.raises(ServerUnavailable, match="cosmos_video2world_fast"):
        client.generate(b"ok", prompt="a robot", disable_diffusion_decoder=True)


def test_a_hanging_request_ends_at_its_deadline_on_both_sides(peer: "Peer") -> None:
    with CosmosClient(peer.url, timeout_s=0.7) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.7 s"):
            client.generate(b"hang", request_id="late")
        assert time.monotonic() - begin < 3
        peer.wait_for(lambda: peer.ids("ended") == {"late"}, "the peer to drop the request")


def in_background(generate: Callable[[], World]) -> tuple[threading.Thread, list[CosmosClientError]]:
    errors: list[CosmosClientError] = []

    def run() -> None:
        try:
            generate()
        except CosmosClientError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_cancel_ends_a_request_by_its_id(peer: "Peer", client: CosmosClient) -> None:
    thread, errors = in_background(lambda: client.generate(b"hang", request_id="unwanted"))
    peer.wait_for(lambda: "unwanted" in peer.ids("started"), "the request to start")
    with pytest.raises(UsageError, match="already in flight"):
        client.generate(b"ok", request_id="unwanted")
    with CosmosClient(peer.url) as another:
        another.cancel("unwanted")
    thread.join(5)
    assert [type(error) for error in errors] == [RequestCancelled]
    assert peer.ids("ended") == {"unwanted"}


def test_close_cancels_what_is_in_flight(peer: "Peer", client: CosmosClient) -> None:
    running = [in_background(lambda: client.generate(b"hang")) for _ in range(3)]
    peer.wait_for(lambda: len(peer.ids("started")) == 3, "the requests to start")
    client.close()
    for thread, errors in running:
        thread.join(5)
        assert [type(error) for error in errors] == [RequestCancelled]
    assert peer.ids("cancel") == peer.ids("started")
    with pytest.raises(RequestCancelled):
        client.generate(b"ok")
    client.cancel("whatever")  # never raises, not even now


def test_one_client_serves_many_threads(client: CosmosClient) -> None:
    worlds: dict[int, World] = {}

    def run(seed: int) -> None:
        worlds[seed] = client.generate(b"ok 0.3", seed=seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {seed: int(world.tokens[0, 0, 0]) for seed, world in worlds.items()} == {n: n for n in range(8)}
    assert max(world.report["in_flight"] for world in worlds.values()) > 1


def test_status_names_ensembles_and_stages(client: CosmosClient) -> None:
    status = client.status()
    assert status.server.startswith("triton 2.")
    assert status.ready
    ready = {model.name: model.ready for model in status.models}
    assert ready == {
        "cosmos_base": True,
        "cosmos_base_fast": True,
        "cosmos_video2world": True,
        "cosmos_video2world_fast": False,
        "ar_sampler": True,
        "world": True,
    }
