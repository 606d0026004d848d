"""The HTTP door: health, metadata and inference of the public ensembles, and nothing else.

Requests are bounded before Triton's parser sees them, and compressed bodies are not taken. Paths are matched
against what is public and built anew, never passed on as they came.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from cosmos_triton.server.admission import Admission, Refused, Request, first_of
from cosmos_triton.server.grpc_front import KEY_HEADER, is_key
from cosmos_triton.server.upstream import HTTP_KEY_HEADER, Upstream

_log = logging.getLogger(__name__)

HEADER_LENGTH = "Inference-Header-Content-Length"  # bytes of JSON before the binary tensors
_KEPT = ("traceparent", "tracestate")
_GONE = frozenset({"transfer-encoding", "content-length", "connection", "content-encoding", "date", "server"})


class HttpFront:
    """The routes; see `GrpcFront` for the arguments. `max_bytes` bounds a body."""

    def __init__(
        self,
        upstream: Upstream,
        admission: Admission,
        public: Sequence[str],
        key: str,
        ready: Callable[[], bool],
        max_bytes: int,
    ) -> None:
        self._upstream = upstream
        self._admission = admission
        self._public = frozenset(public)
        self._key = key
        self._ready = ready
        self._max_bytes = max_bytes
        self.application = web.Application(client_max_size=max_bytes)
        self.application.add_routes(
            [
                web.get("/v2", self._metadata),
                web.get("/v2/health/live", self._live),
                web.get("/v2/health/ready", self._is_ready),
                web.get("/v2/models/{model}", self._of_model),
                web.get("/v2/models/{model}/ready", self._of_model),
                web.post("/v2/models/{model}/infer", self._infer),
                web.route("*", "/{path:.*}", self._operator),
            ]
        )

    async def _live(self, request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def _is_ready(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if self._ready() else 503)

    async def _metadata(self, request: web.Request) -> web.StreamResponse:
        return await self._pass_on(request, "/v2", b"")

    async def _of_model(self, request: web.Request) -> web.StreamResponse:
        model = self._public_model(request)
        ready = "/ready" if request.path.endswith("/ready") else ""
        return await self._pass_on(request, f"/v2/models/{model}{ready}", b"")

    async def _operator(self, request: web.Request) -> web.StreamResponse:
        """Everything else is Triton's administration: for the holder of the key."""
        if not is_key(request.headers.get(KEY_HEADER), self._key):
            return _failure(403, f"{request.method} {request.path[:80]} is for this server's operator")
        return await self._pass_on(request, request.path_qs, await request.read())

    def _public_model(self, request: web.Request) -> str:
        model = request.match_info["model"]
        if model in self._public or is_key(request.headers.get(KEY_HEADER), self._key):
            return model
        served = ", ".join(sorted(self._public))
        raise _as_error(404, f"model {model[:80]!r} is not served here; there are {served}")

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        model = self._public_model(request)
        if "Content-Encoding" in request.headers:  # media is compressed, and little could unpack to much
            return _failure(415, "send the body as it is, without a Content-Encoding")
        if (request.content_length or 0) > self._max_bytes:
            return _failure(413, f"the body has {request.content_length} bytes, at most {self._max_bytes}")
        body = await request.read()  # 413 past the limit
        header, tensors = _split(body, request.headers.get(HEADER_LENGTH))
        client_id = header.get("id", "")
        if not isinstance(client_id, str):
            return _failure(400, f"the request's id {client_id!r:.80} is not a text")
        try:
            with self._admission.admitted(client_id) as inside:
                text = json.dumps({**header, "id": inside.id}).encode()
                return await self._passed_or_lost(request, model, text, tensors, inside)
        except Refused as refusal:
            return _failure(503, str(refusal), {"Retry-After": "10"})
        except ValueError as error:
            return _failure(400, str(error))

    async def _passed_or_lost(
        self, request: web.Request, model: str, header: bytes, tensors: bytes, inside: Request
    ) -> web.StreamResponse:
        call = asyncio.ensure_future(
            self._pass_on(
                request, f"/v2/models/{model}/infer", header + tensors, {HEADER_LENGTH: str(len(header))}
            )
        )
        try:
            await first_of(call, inside.lost)
        except asyncio.CancelledError:  # the client has gone
            await self._upstream.withdraw(inside.id)
            raise
        finally:
            if not call.done():
                call.cancel()
        if inside.lost.done():
            return _failure(503, inside.lost.result(), {"Retry-After": "10"})
        return _with_id(await call, inside.client_id)

    async def _pass_on(
        self, request: web.Request, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> web.Response:
        kept = {name: request.headers[name] for name in _KEPT if name in request.headers}
        sent = {**kept, **(headers or {}), HTTP_KEY_HEADER: self._upstream.key, "Accept-Encoding": "identity"}
        url = self._upstream.url(path)
        try:
            async with self._upstream.session.request(request.method, url, data=body, headers=sent) as answer:
                told = {name: value for name, value in answer.headers.items() if name.lower() not in _GONE}
                return web.Response(status=answer.status, headers=told, body=await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            _log.warning("Triton does not answer %s: %s", path, error)
            return _failure(503, "the server is starting, or starting again", {"Retry-After": "10"})


async def serve(application: web.Application, host: str, port: int) -> web.AppRunner:
    """Listen, with handlers that end when their client leaves; returns what to clean up.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(application, handler_cancellation=True, auto_decompress=False, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_port=False)
    await site.start()
    return runner


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request and the binary tensors behind it."""
    if header_length is not None and not header_length.isdigit():
        raise _as_error(400, f"{HEADER_LENGTH} {header_length[:80]!r} is not a number")
    length = len(body) if header_length is None else int(header_length[:20])
    if length > len(body):
        raise _as_error(400, f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
    try:
        header = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise _as_error(400, "the request does not begin with JSON") from None
    if not isinstance(header, dict):
        raise _as_error(400, "the request's JSON is not an object")
    if not isinstance(header.get("inputs"), list):
        raise _as_error(400, "the request has no list of inputs")
    return header, body[length:]


def _with_id(answer: web.Response, client_id: str) -> web.Response:
    """The answer under the id that the client knows."""
    length = answer.headers.get(HEADER_LENGTH)
    body = answer.body if isinstance(answer.body, bytes) else b""
    try:
        header = json.loads(body[: int(length)] if length else body)
    except ValueError:
        return answer
    if "id" not in header:
        return answer
    header = {**header, "id": client_id} if client_id else {k: v for k, v in header.items() if k != "id"}
    text = json.dumps(header).encode()
    answer.body = text + (body[int(length) :] if length else b"")
    if length:
        answer.headers[HEADER_LENGTH] = str(len(text))
    return answer


def _failure(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": sentence}, status=status, headers=headers)


def _as_error(status: int, sentence: str) -> web.HTTPException:
    kinds = {400: web.HTTPBadRequest, 404: web.HTTPNotFound}
    return kinds[status](text=json.dumps({"error": sentence}), content_type="application/json")
