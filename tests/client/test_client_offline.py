"""What the client does without a server: values, names, files, connections that fail."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer

import numpy as np
import pytest

from cosmos_client import CosmosClient, DeadlineExceeded, ServerUnavailable, UsageError, World
from cosmos_client._files import atomic_file, make_folder, prepare_output
from cosmos_client._options import Options
from cosmos_client._request import WorldRequest, choose_model, read_file
from cosmos_client._status import from_index


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_importing_the_client_imports_no_torch() -> None:
    program = "import sys, cosmos_client, cosmos_client.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "tritonclient" in loaded
    assert not loaded & {"torch", "cosmos_triton", "diffusers", "transformers", "av", "cv2"}


@pytest.mark.parametrize(
    ("model", "prompt", "disable", "expected"),
    [
        (None, None, False, "cosmos_base"),
        (None, "a robot", False, "cosmos_video2world"),
        (None, "", False, "cosmos_video2world"),  # the server refuses it with a reason
        (None, None, True, "cosmos_base_fast"),
        (None, "a robot", True, "cosmos_video2world_fast"),
        ("cosmos_base", None, False, "cosmos_base"),
        ("cosmos_video2world", None, False, "cosmos_video2world"),  # the server refuses it with a reason
        ("mine", "a robot", False, "mine"),  # the server knows what it has
        ("mine", None, True, "mine_fast"),
        ("cosmos_base_fast", None, True, "cosmos_base_fast"),
    ],
)
def test_choose_model(model: str | None, prompt: str | None, disable: bool, expected: str) -> None:
    assert choose_model(model, prompt, disable_diffusion_decoder=disable) == expected


@pytest.mark.parametrize("disable", [False, True])
@pytest.mark.parametrize(
    ("model", "prompt", "message"),
    [
        ("", None, "the model's name is empty"),
        ("", "a robot", "the model's name is empty"),
        ("cosmos_base", "a robot", "model cosmos_base takes no prompt.*cosmos_video2world"),
        ("cosmos_base_fast", "", "model cosmos_base_fast takes no prompt"),
    ],
)
def test_models_that_cannot_serve_a_request(
    model: str, prompt: str | None, message: str, disable: bool
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_model(model, prompt, disable_diffusion_decoder=disable)
    with CosmosClient("localhost:1") as client, pytest.raises(UsageError, match=message):
        client.generate(b"x", model=model, prompt=prompt, disable_diffusion_decoder=disable)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "7"}, "seed must be a whole number, not '7'"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"seed": 2**63}, "does not fit into 64 bits"),
        ({"num_input_frames": 2**31}, "does not fit into 32 bits"),
        ({"top_p": "0.8"}, "top_p must be a number, not '0.8'"),
        ({"temperature": [1]}, "temperature must be a number"),
        ({"temperature": 1e39}, "too large for a number of 32 bits"),
        ({"temperature": 10**400}, "too large for a number of 32 bits"),
        ({"prompt": 5}, "prompt must be text, not 5"),
        ({"prompt": "a\udc80"}, "prompt is not valid Unicode"),
    ],
)
def test_values_that_cannot_be_sent_are_usage_errors(options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=r"^[^\n]*$") as caught:
        WorldRequest(b"x", options)
    assert message in str(caught.value)


def test_media_that_is_empty_cannot_be_sent() -> None:
    with pytest.raises(UsageError, match="empty"):
        WorldRequest(b"", {})


def test_an_option_that_does_not_exist_is_no_option() -> None:
    with (
        CosmosClient("localhost:1") as client,
        pytest.raises(TypeError, match=r"no option 'sede'; it has prompt, .*seed"),
    ):
        client.generate(b"x", sede=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"num_input_frames": 5}, {"top_p": 2.0}, {"temperature": float("nan")}]
)
def test_ranges_are_left_to_the_server(options: Options) -> None:
    request = WorldRequest(b"x", options)
    assert [tensor.name() for tensor in request.inputs()] == ["media", *options]


def test_none_is_the_servers_default() -> None:
    assert [tensor.name() for tensor in WorldRequest(b"x", {"seed": None}).inputs()] == ["media"]


def test_numpy_scalars_are_numbers() -> None:
    request = WorldRequest(b"x", {"seed": np.int64(3), "top_p": np.float32(0.5)})  # type: ignore[typeddict-item]
    assert [tensor.datatype() for tensor in request.inputs()] == ["BYTES", "INT64", "FP32"]


def test_read_file_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UsageError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        read_file(tmp_path / "empty.mp4")
    with pytest.raises(UsageError, match=r"no such file: .*absent\.mp4"):
        read_file(str(tmp_path / "absent.mp4"))
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        read_file(tmp_path)
    with pytest.raises(UsageError, match="is not a path"):
        read_file("a\0b")
    sparse = tmp_path / "huge.mp4"
    with sparse.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UsageError, match="2,147,483,648 bytes"):
        read_file(sparse)


@pytest.mark.parametrize("url", ["http://localhost:8001", "localhost", "", "localhost:8001/v2", "a b:1"])
def test_a_url_is_host_and_port(url: str) -> None:
    with pytest.raises(UsageError, match="is not host:port"):
        CosmosClient(url)


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_is_one_that_exists(port: str) -> None:
    with pytest.raises(UsageError, match=f"localhost:{port}.* not in 1 to 65535"):
        CosmosClient(f"localhost:{port}")


@pytest.mark.parametrize("url", ["localhost:1", "localhost:65535", "127.0.0.1:8001", "[::1]:8001"])
def test_urls_that_are_taken(url: str) -> None:
    with CosmosClient(url) as client:
        assert client.url == url


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e12, 604_801])
def test_a_time_limit_is_positive_and_at_most_a_week(timeout_s: float) -> None:
    with pytest.raises(UsageError, match="timeout_s"):
        CosmosClient(timeout_s=timeout_s)
    with CosmosClient() as client, pytest.raises(UsageError, match="timeout_s"):
        client.status(timeout_s)


def test_a_missing_certificate_is_named() -> None:
    with pytest.raises(UsageError, match=r"/nowhere/ca\.pem"):
        CosmosClient(tls=True, root_certificates="/nowhere/ca.pem")


def test_half_a_client_certificate_is_refused() -> None:
    with pytest.raises(UsageError, match="together or not at all"):
        CosmosClient(tls=True, private_key=__file__)
    with pytest.raises(UsageError, match="without tls"):
        CosmosClient(root_certificates=__file__)


def test_nobody_listens() -> None:
    port = free_port()
    with CosmosClient(f"localhost:{port}") as client:
        with pytest.raises(ServerUnavailable) as caught:
            client.generate(b"x")
        assert str(caught.value) == f"no server answers at localhost:{port} (connection refused)"
        with pytest.raises(ServerUnavailable):
            client.status()
        client.cancel("nothing")


def test_the_host_is_unknown() -> None:
    with (
        CosmosClient("no-such-host.invalid:8001") as client,
        pytest.raises(ServerUnavailable, match="cannot be resolved"),
    ):
        client.generate(b"x")


@contextmanager
def http_server() -> Iterator[int]:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def closing_port() -> Iterator[int]:
    """A port that reads the first bytes of a connection and closes it, as Triton's HTTP port does."""

    class Close(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)

    with TCPServer(("127.0.0.1", 0), Close) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_port_is_not_grpc() -> None:
    with (
        http_server() as port,
        CosmosClient(f"127.0.0.1:{port}") as client,
        pytest.raises(ServerUnavailable, match="does not speak gRPC"),
    ):
        client.generate(b"x")


def test_the_port_closes_the_connection_without_a_word(closing_port: int) -> None:
    with (
        CosmosClient(f"127.0.0.1:{closing_port}") as client,
        pytest.raises(ServerUnavailable, match=r"may want TLS .*, or not speak gRPC .*8001"),
    ):
        client.generate(b"x")


def test_a_server_that_says_nothing_ends_at_the_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            CosmosClient(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3) as client,
            pytest.raises(DeadlineExceeded),
        ):
            client.generate(b"x")


def a_world(video: bytes = b"video") -> World:
    return World(video, np.zeros((5, 2, 3), np.int32), {"seed": 0}, "id")


def test_save_replaces_a_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "world.mp4"
    target.write_bytes(b"old")
    assert a_world().save(str(target)) == target
    assert target.read_bytes() == b"video"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "world.mp4"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_file(target) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_saved_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    saved = a_world().save(tmp_path / "world.mp4")
    assert saved.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_outputs_that_cannot_be_written_are_usage_errors(tmp_path: Path) -> None:
    prepare_output(tmp_path / "a" / "b" / "world.mp4")
    assert (tmp_path / "a" / "b").is_dir()
    for impossible in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match="not a regular file"):
            prepare_output(impossible)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "sub")


def test_status_from_the_repository_index() -> None:
    models = from_index(
        [
            {"name": "world", "state": "UNAVAILABLE", "reason": "unloaded"},
            {"name": "cosmos_base", "state": "UNAVAILABLE", "reason": "old version"},
            {"name": "cosmos_base", "state": "READY", "reason": ""},
            {"name": "ar_sampler", "state": "", "reason": ""},
        ]
    )
    assert [(model.name, model.ready, model.detail) for model in models] == [
        ("cosmos_base", True, ""),
        ("cosmos_base_fast", False, "not in the server's repository"),
        ("cosmos_video2world", False, "not in the server's repository"),
        ("cosmos_video2world_fast", False, "not in the server's repository"),
        ("ar_sampler", False, "not loaded"),
        ("world", False, "unloaded"),
    ]
