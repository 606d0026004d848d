"""What a failed call means: Triton's codes and sentences, and a proxy on the way to the server."""

import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from cosmos_client import (
    BlockedByGuardrail,
    CosmosClient,
    CosmosClientError,
    DeadlineExceeded,
    NotAdmitted,
    NotReached,
    RequestCancelled,
    RequestRefused,
    ServerFault,
    ServerStopping,
    ServerUnavailable,
)
from cosmos_client._failures import from_triton
from cosmos_client._proxy import Proxy, is_loopback, proxy_for

IN_ENSEMBLE = "in ensemble 'cosmos_base', [request id: 7f3] "
NOT_LOADED = "Request for unknown model: 'cosmos_base' has no available versions"
QUEUE_FULL = "the queue of 32 videos is full"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def failure(code: str, message: str) -> CosmosClientError:
    return from_triton(InferenceServerException(message, status=f"StatusCode.{code}"), "gpu-box:8001", 5)


@pytest.mark.parametrize(
    ("code", "message", "kind", "sentence"),
    [
        ("INVALID_ARGUMENT", IN_ENSEMBLE + "top_p 7", RequestRefused, "top_p 7"),
        ("UNAVAILABLE", IN_ENSEMBLE + QUEUE_FULL, NotAdmitted, QUEUE_FULL),
        (
            "UNAVAILABLE",
            "[request id: 1] Exceeds maximum queue size",
            NotAdmitted,
            "Exceeds maximum queue size",
        ),
        ("NOT_FOUND", NOT_LOADED, NotAdmitted, NOT_LOADED + " (`cosmos-client status` lists what is ready)"),
        (
            "UNAVAILABLE",
            "Server is stopping to serve",
            ServerStopping,
            "the server at gpu-box:8001 is stopping",
        ),
        (
            "UNAVAILABLE",
            IN_ENSEMBLE + "the server is stopping",
            ServerStopping,
            "the server at gpu-box:8001 is stopping",
        ),
        ("DEADLINE_EXCEEDED", "", DeadlineExceeded, "no answer from gpu-box:8001 within 5 s"),
        ("UNAVAILABLE", IN_ENSEMBLE + "Request timeout expired", DeadlineExceeded, "Request timeout expired"),
        ("CANCELLED", "x", RequestCancelled, "the request was cancelled"),
        ("INTERNAL", "", ServerFault, "the server failed (INTERNAL): no reason was given"),
        (
            "UNAVAILABLE",
            "Stream removed (Socket closed)",
            ServerUnavailable,
            "the connection to gpu-box:8001 was lost before the answer came: Stream removed (Socket closed)",
        ),
    ],
)
def test_each_failure_has_its_kind_and_its_sentence(
    code: str, message: str, kind: type[CosmosClientError], sentence: str
) -> None:
    error = failure(code, message)
    assert type(error) is kind
    assert str(error) == sentence


@pytest.mark.parametrize(
    "message",
    [
        IN_ENSEMBLE + NOT_LOADED.replace("cosmos_base", "video_decoder"),  # of a stage behind the sampler
        IN_ENSEMBLE + "Exceeds maximum queue size",
        IN_ENSEMBLE + "diffusion_denoiser did not answer: " + NOT_LOADED,
        "Stream removed (Socket closed)",
        "the engine has failed (RuntimeError)",
    ],
)
def test_what_may_have_run_is_not_called_unbegun(message: str) -> None:
    assert not isinstance(failure("UNAVAILABLE", message), NotAdmitted)


@pytest.mark.parametrize(
    "error",
    [BlockedByGuardrail("blocked by prompt_guardrail (weapons): 'gun' is on the list"), NotReached("nobody")],
)
def test_errors_travel_between_processes(error: CosmosClientError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


class RefusingProxy(BaseHTTPRequestHandler):
    """An HTTP proxy that lets nobody through."""

    asked: list[str]

    def do_CONNECT(self) -> None:
        self.asked.append(self.path)
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def proxy() -> Iterator[str]:
    RefusingProxy.asked = []
    with HTTPServer(("127.0.0.1", 0), RefusingProxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_a_proxy_that_refuses_is_named(
    proxy: str, variable: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, f"http://somebody:secret@{proxy}")
    with CosmosClient("gpu-box.invalid:8001") as client, pytest.raises(NotReached) as caught:
        client.generate(b"x")
    assert str(caught.value) == (
        f"the proxy http://{proxy} ({variable}), through which gpu-box.invalid:8001 is asked, "
        "refuses it with status 403; no_proxy=gpu-box.invalid goes around it"
    )
    assert "gpu-box.invalid:8001" in RefusingProxy.asked
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1", r"the proxy http://127\.0\.0\.1:1 \(http_proxy\).* does not answer"),
        ("http://no-such-proxy.invalid:3128", r"the proxy http://no-such-proxy.* name cannot be resolved"),
    ],
)
def test_a_proxy_that_is_not_there_is_named(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", address)
    with CosmosClient("gpu-box.invalid:8001") as client, pytest.raises(NotReached, match=message):
        client.generate(b"x")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "cosmos.localhost"])
def test_this_machine_is_never_asked_through_a_proxy(
    proxy: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(variable, f"http://{proxy}")
    with CosmosClient(f"{host}:1") as client, pytest.raises(NotReached) as caught:
        client.generate(b"x")
    assert RefusingProxy.asked == []
    assert "proxy" not in str(caught.value)


def test_a_host_that_no_proxy_names_is_asked_directly(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy}")
    monkeypatch.setenv("no_proxy", "example.com, .invalid")
    with (
        CosmosClient("gpu-box.invalid:8001") as client,
        pytest.raises(NotReached, match=r"the host of gpu-box\.invalid:8001 is not known"),
    ):
        client.generate(b"x")
    assert RefusingProxy.asked == []


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "gpu:1", None),
        ({"http_proxy": "http://p:3"}, "gpu:1", Proxy("http://p:3", "http_proxy")),
        (
            {"http_proxy": "http://p:3", "grpc_proxy": "http://q:4"},
            "gpu:1",
            Proxy("http://q:4", "grpc_proxy"),
        ),
        ({"http_proxy": "http://p:3", "no_proxy": "10.0.0.0/8"}, "10.1.2.3:1", None),
        (
            {"http_proxy": "http://p:3", "no_proxy": "10.0.0.0/8"},
            "11.1.2.3:1",
            Proxy("http://p:3", "http_proxy"),
        ),
        (
            {"http_proxy": "http://p:3", "no_proxy": "gpu", "no_grpc_proxy": "x"},
            "gpu:1",
            Proxy("http://p:3", "http_proxy"),
        ),
    ],
)
def test_the_proxy_in_force_is_the_one_that_grpc_takes(
    variables: dict[str, str], url: str, expected: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


@pytest.mark.parametrize("url", ["gpu-box:8001", "10.0.0.1:8001", "localhost.example.com:8001"])
def test_other_machines_are_not_this_one(url: str) -> None:
    assert not is_loopback(url)
