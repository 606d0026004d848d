"""The client: one gRPC channel, many requests."""

import concurrent.futures
import re
import threading
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from cosmos_client._contract import (
    CANCEL_INPUT,
    CANCEL_MODEL,
    ENSEMBLES,
    FRAMES_OUTPUT,
    OPERATORS_ONLY,
    OUTPUTS,
)
from cosmos_client._errors import DeadlineExceeded, RequestCancelled, UsageError
from cosmos_client._failures import from_triton
from cosmos_client._options import Options
from cosmos_client._proxy import is_loopback
from cosmos_client._request import Media, WorldRequest, choose_model, read_file, tensor
from cosmos_client._status import ModelStatus, ServerStatus, from_index
from cosmos_client._world import World, world_from

DEFAULT_URL = "localhost:8001"
DEFAULT_TIMEOUT_S = 600.0
MAX_TIMEOUT_S = 7 * 24 * 3600.0  # a week; a deadline of 1e12 s overflows in gRPC, which then expires at once
_CANCEL_TIMEOUT_S = 5.0  # a server that is stuck must not hold up the one who leaves
_HOST_AND_PORT = re.compile(r"[^/\s]+:(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535  # gRPC takes a larger one and says that the connection is refused
_MAX_MESSAGE = 2**31 - 1  # gRPC's own limit is 4 MB


class CosmosClient:
    """A client of one cosmos-triton server; safe to use from many threads.

        with CosmosClient("localhost:8001") as client:
            world = client.generate("clip.mp4", prompt="The robot picks up the red cup", seed=7)
            world.save("world.mp4")

    Args:
        url: host and port of Triton's gRPC endpoint. An HTTP proxy in `grpc_proxy`, `https_proxy` or
            `http_proxy` is used for it, unless `no_proxy` names the host or it is this machine.
        timeout_s: the most seconds one request may take, queueing included. The server is told it too.
        tls: encrypt the connection; the server needs `--grpc-use-ssl`.
        root_certificates: a PEM file to check the server's certificate with; None takes gRPC's own roots.
        private_key, certificate_chain: PEM files that prove who the client is, for mutual TLS.

    Raises:
        UsageError: `url` is not host:port, its port is not in 1 to 65535, `timeout_s` is not in
            (0, a week], or a file cannot be read.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        tls: bool = False,
        root_certificates: str | None = None,
        private_key: str | None = None,
        certificate_chain: str | None = None,
    ) -> None:
        if (parts := _HOST_AND_PORT.fullmatch(url)) is None:
            raise UsageError(f"url {url!r} is not host:port, e.g. {DEFAULT_URL}")
        if not 1 <= int(parts["port"]) <= _MAX_PORT:
            raise UsageError(f"url {url!r} has a port that is not in 1 to {_MAX_PORT}")
        check_timeout(timeout_s)
        self.url = url
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._in_flight: dict[str, Any] = {}  # request id → its call
        self._closed = False
        if (private_key is None) != (certificate_chain is None):  # gRPC would abort the whole process
            raise UsageError("a private key and its certificate chain are given together or not at all")
        files = [file for file in (root_certificates, private_key, certificate_chain) if file is not None]
        if files and not tls:
            raise UsageError(f"{files[0]} is given without tls, and the connection would be in the clear")
        for file in files:
            read_file(file)  # gRPC's own complaints do not name the file
        self._triton = triton.InferenceServerClient(
            url,
            ssl=tls,
            root_certificates=root_certificates,
            private_key=private_key,
            certificate_chain=certificate_chain,
            channel_args=_channel_arguments(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what is still in flight, on the server too, and closes the connection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            left = list(self._in_flight)
        try:
            self._withdraw(left)
        finally:
            self._triton.close()

    def generate(
        self,
        media: Media,
        *,
        model: str | None = None,
        disable_diffusion_decoder: bool = False,
        want_frames: bool = False,
        request_id: str | None = None,
        **options: Unpack[Options],
    ) -> World:
        """Sends one image or video and waits for the world that continues it.

        Args:
            media: a path, or the bytes of one encoded file: png, jpg, jpeg, webp or mp4.
            model: the ensemble; by default `cosmos_video2world` with a prompt, `cosmos_base` without.
            disable_diffusion_decoder: use the model's `_fast` ensemble: sooner done, less sharp.
            want_frames: also send the raw frames (65 MB for 33x640x1024).
            request_id: unique id for logs and cancellation; by default a new UUID.
            options: what `Options` lists: a prompt, a seed, ...

        Raises:
            CosmosClientError: in one of the kinds that `cosmos_client._errors` draws. An interruption
                (Ctrl-C) cancels the request on the server and goes on as it is.
        """
        content = media if isinstance(media, bytes) else read_file(media)
        request = WorldRequest(content, options)
        name = choose_model(model, options.get("prompt"), disable_diffusion_decoder=disable_diffusion_decoder)
        wanted = OUTPUTS | FRAMES_OUTPUT if want_frames else OUTPUTS
        key = uuid.uuid4().hex if request_id is None else request_id
        result = self._infer(name, request.inputs(), list(wanted), key)
        return world_from(result, key, want_frames=want_frames)

    def cancel(self, request_id: str) -> None:
        """Withdraws a request, its own or another client's; best effort, never raises.

        The server's engine drops it at its next step, and whoever waits for it gets
        `RequestCancelled`.
        """
        self._withdraw([request_id])

    def status(self, timeout_s: float = 10.0) -> ServerStatus:
        """What the server has loaded.

        Raises:
            ServerUnavailable: no server answers.
            DeadlineExceeded: it does not answer a question within `timeout_s`.
            UsageError: `timeout_s` is not in (0, a week].
        """
        check_timeout(timeout_s)
        try:
            server = self._triton.get_server_metadata(client_timeout=timeout_s)
            models = self._models(timeout_s)
        except InferenceServerException as error:
            raise from_triton(error, self.url, timeout_s) from error
        return ServerStatus(self.url, f"{server.name} {server.version}", models)

    def _models(self, timeout_s: float) -> tuple[ModelStatus, ...]:
        try:
            index = self._triton.get_model_repository_index(client_timeout=timeout_s)
        except InferenceServerException as error:
            if not OPERATORS_ONLY.search(error.message() or ""):
                raise
            # A production server may keep its repository to its operators: ask for each by name.
            return tuple(self._model_by_name(name, timeout_s) for name in ENSEMBLES)
        return from_index({"name": m.name, "state": m.state, "reason": m.reason} for m in index.models)

    def _model_by_name(self, name: str, timeout_s: float) -> ModelStatus:
        ready = bool(self._triton.is_model_ready(name, client_timeout=timeout_s))
        return ModelStatus(name, ready, "" if ready else "not ready")

    def _infer(self, model: str, inputs: list[Any], outputs: list[str], request_id: str) -> Any:
        """One inference under a deadline, cancelled on the server if nobody waits for it any more."""
        answer = self._send(model, inputs, outputs, request_id)
        try:
            return answer.result()
        except InferenceServerException as error:
            reason = from_triton(error, self.url, self.timeout_s)
            if isinstance(reason, DeadlineExceeded):
                self._withdraw([request_id])
            raise reason from error
        except BaseException:  # Ctrl-C
            self._withdraw([request_id])
            raise
        finally:
            self._in_flight.pop(request_id, None)

    def _send(
        self, model: str, inputs: list[Any], outputs: list[str], request_id: str
    ) -> concurrent.futures.Future[Any]:
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:  # so that close() finds each request either not sent or in flight
            if self._closed:
                raise RequestCancelled("the client is closed")
            if request_id in self._in_flight:
                raise UsageError(f"request id {request_id!r} is already in flight")
            try:
                self._in_flight[request_id] = self._triton.async_infer(
                    model,
                    inputs,
                    callback=_deliver_to(answer),
                    outputs=[triton.InferRequestedOutput(name) for name in outputs],
                    request_id=request_id,
                    timeout=int(self.timeout_s * 1e6),  # microseconds; the engine keeps it
                    client_timeout=self.timeout_s,
                )
            except InferenceServerException as error:
                raise from_triton(error, self.url, self.timeout_s) from error
        return answer

    def _withdraw(self, request_ids: Iterable[str]) -> None:
        """Tells the engine first, because a cancelled call alone leaves it running; then the calls."""
        ids = list(request_ids)
        told = [future for request_id in ids if (future := self._tell_engine(request_id))]
        try:
            concurrent.futures.wait(told, timeout=_CANCEL_TIMEOUT_S)
        finally:  # a second Ctrl-C ends the wait, and must not leave a call that others wait for
            for request_id in ids:
                if (call := self._in_flight.get(request_id)) is not None:
                    call.cancel()

    def _tell_engine(self, request_id: str) -> concurrent.futures.Future[Any] | None:
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            self._triton.async_infer(
                CANCEL_MODEL,
                [tensor(CANCEL_INPUT, "BYTES", request_id.encode())],
                callback=_deliver_to(answer),
                client_timeout=_CANCEL_TIMEOUT_S,
            )
        except (InferenceServerException, ValueError):  # ValueError: the channel is closed already
            return None
        return answer


def _channel_arguments(url: str) -> list[tuple[str, int]]:
    """gRPC's settings; the client library's own are replaced as a whole, so its sizes stand here too."""
    sizes = [
        ("grpc.max_send_message_length", _MAX_MESSAGE),
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ]
    return [*sizes, ("grpc.enable_http_proxy", 0)] if is_loopback(url) else sizes


def check_timeout(timeout_s: float) -> None:
    """Raises `UsageError` unless `timeout_s`, in seconds, is in (0, `MAX_TIMEOUT_S`]."""
    if not 0 < timeout_s <= MAX_TIMEOUT_S:  # NaN fails too
        raise UsageError(
            f"timeout_s must be more than 0 and at most {MAX_TIMEOUT_S:.0f} seconds, not {timeout_s}"
        )


def _deliver_to(answer: concurrent.futures.Future[Any]) -> Any:
    def deliver(result: Any, error: InferenceServerException | None) -> None:
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    return deliver
