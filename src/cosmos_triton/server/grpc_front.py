"""The gRPC door: a reverse proxy that passes on requests for the public ensembles, and nothing else.

Triton itself listens on the loopback only, with its administration behind a key. What a stranger may call
stands in `PUBLIC`. Messages are passed on as the bytes they came in; of a request only model and id are
read, and its id is replaced by one that no other request has (in protobuf the last value of a field counts,
so appending one replaces it without a copy of the media).

A client that leaves (a cancelled call, a closed connection, a passed deadline) withdraws its request from
the engine.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as messages  # type: ignore[import-untyped]

from cosmos_triton.server.admission import Admission, Refused, Request, first_of
from cosmos_triton.server.upstream import Upstream

_log = logging.getLogger(__name__)

KEY_HEADER = "cosmos-admin-key"
SERVICE = "/inference.GRPCInferenceService/"
PUBLIC = ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer")
_ID_FIELD = 3  # of ModelInferRequest
_RESPONSE_ID_FIELD = 3  # of ModelInferResponse
_STRING = 2  # protobuf's wire type of strings
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Context = Any  # grpc.aio.ServicerContext, which has no types


class GrpcFront(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call of every service: passes it on, or refuses it.

    Args:
        upstream: the Triton behind.
        admission: who may come in.
        public: ensembles that strangers may call.
        key: the administrator's; a call that carries it in `cosmos-admin-key` is passed on whatever it is.
        ready: whether the server as a whole is ready.
    """

    def __init__(
        self,
        upstream: Upstream,
        admission: Admission,
        public: Sequence[str],
        key: str,
        ready: Callable[[], bool],
    ) -> None:
        self._upstream = upstream
        self._admission = admission
        self._public = frozenset(public)
        self._key = key
        self._ready = ready

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The handler of one call, by its full name."""
        administrator = is_key(dict(details.invocation_metadata or ()).get(KEY_HEADER), self._key)
        method = details.method

        async def answer(body: bytes, context: Context) -> bytes:
            return await self._answer(method, body, context, administrator=administrator)

        return grpc.unary_unary_rpc_method_handler(answer)  # no (de)serialisers: bytes in, bytes out

    async def _answer(self, method: str, body: bytes, context: Context, *, administrator: bool) -> bytes:
        name = method.removeprefix(SERVICE)
        if name not in PUBLIC or not method.startswith(SERVICE):
            if administrator and method.startswith(SERVICE):
                return await self._pass_on(method, body, context)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{method} is for this server's operator")
        if name == "ServerReady":
            return bytes(messages.ServerReadyResponse(ready=self._ready()).SerializeToString())
        if name == "ModelInfer":
            return await self._infer(method, body, context, administrator=administrator)
        if name in ("ModelReady", "ModelMetadata"):
            request = await _parsed(getattr(messages, f"{name}Request"), body, context)
            if name == "ModelReady" and request.name not in self._public and not administrator:
                return bytes(messages.ModelReadyResponse(ready=False).SerializeToString())
            await self._check_public(request.name, context, administrator=administrator)
        return await self._pass_on(method, body, context)

    async def _check_public(self, model: str, context: Context, *, administrator: bool) -> None:
        if model not in self._public and not administrator:
            served = ", ".join(sorted(self._public))
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"model {model[:80]!r} is not served here; there are {served}"
            )

    async def _infer(self, method: str, body: bytes, context: Context, *, administrator: bool) -> bytes:
        request = await _parsed(messages.ModelInferRequest, body, context)
        await self._check_public(request.model_name, context, administrator=administrator)
        client_id = request.id
        del request  # a copy of the media
        try:
            with self._admission.admitted(client_id) as inside:
                answer = await self._passed_or_lost(
                    method, body + _id_field(_ID_FIELD, inside.id), context, inside
                )
                return answer + _id_field(_RESPONSE_ID_FIELD, client_id)
        except Refused as refusal:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(refusal))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        raise AssertionError("abort raises")

    async def _passed_or_lost(self, method: str, body: bytes, context: Context, inside: Request) -> bytes:
        """The answer of the server behind, unless a stage dies with the request or the client leaves."""
        call = asyncio.ensure_future(self._upstream.call(method, body, **_terms(context)))
        try:
            await first_of(call, inside.lost)
        except asyncio.CancelledError:
            await self._upstream.withdraw(inside.id)
            raise
        finally:
            if not call.done():
                call.cancel()
        if inside.lost.done():
            await context.abort(grpc.StatusCode.UNAVAILABLE, inside.lost.result())
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                await self._upstream.withdraw(inside.id)
            raise

    async def _pass_on(self, method: str, body: bytes, context: Context) -> bytes:
        try:
            return await self._upstream.call(method, body, **_terms(context))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
            raise AssertionError("abort raises") from error


async def start(front: GrpcFront, address: str, max_bytes: int) -> grpc.aio.Server:
    """Listen on host:port.

    Raises:
        OSError: the port is taken.
    """
    options = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not half of the traffic
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.max_connection_age_ms", 600_000),  # so that clients spread over servers that came later
        ("grpc.max_connection_age_grace_ms", 1_800_000),
    ]
    server = grpc.aio.server(handlers=(front,), options=options)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:  # gRPC's own
        raise OSError(f"{address} is taken") from error
    await server.start()
    return server


def is_key(given: object, key: str) -> bool:
    """Whether a header's value is the key; takes the same time whatever is given."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), key.encode())


async def _parsed(kind: Any, body: bytes, context: Context) -> Any:
    try:
        return kind.FromString(body)
    except Exception:  # protobuf's own error, of a type that differs between its implementations
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is not a {kind.__name__}")


def _terms(context: Context) -> dict[str, Any]:
    """What of a call goes along with its message: its deadline, and the headers of a trace."""
    kept = ("traceparent", "tracestate")
    metadata = tuple((name, value) for name, value in context.invocation_metadata() or () if name in kept)
    return {"timeout": context.time_remaining(), "metadata": metadata}


def _id_field(number: int, value: str) -> bytes:
    """A string field in protobuf's wire form; appended to a message it replaces what was there."""
    text = value.encode()
    return bytes([number << 3 | _STRING]) + _varint(len(text)) + text


def _varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
