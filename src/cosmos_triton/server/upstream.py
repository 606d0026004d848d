"""The Triton behind the front: calls with the key that its launcher gave it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as messages  # type: ignore[import-untyped]

_log = logging.getLogger(__name__)

GRPC_PREFIX = "triton-grpc-protocol-"  # which Triton puts before a name
GRPC_KEY_HEADER = GRPC_PREFIX + "cosmos-key"
HTTP_KEY_HEADER = "cosmos-key"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_WITHDRAW_S = 2.0
_LOCAL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]

Metadata = Sequence[tuple[str, str]]


@dataclass
class Upstream:
    """One tritonserver on the loopback.

    Args:
        grpc_port, http_port, metrics_port: where it listens.
        key: opens what it restricts.
    """

    grpc_port: int
    http_port: int
    metrics_port: int
    key: str
    host: str = "127.0.0.1"
    _channel: Any = field(init=False, repr=False)
    session: aiohttp.ClientSession = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._channel = grpc.aio.insecure_channel(f"{self.host}:{self.grpc_port}", options=_LOCAL)
        # No proxy of the environment on the loopback, and no limit of time: a video takes minutes.
        self.session = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=None))

    async def call(
        self, method: str, body: bytes, timeout: float | None = None, metadata: Metadata = ()
    ) -> bytes:
        """One unary call, bytes in and out; raises grpc.aio.AioRpcError."""
        unary = self._channel.unary_unary(method)
        answer: bytes = await unary(body, timeout=timeout, metadata=(*metadata, (GRPC_KEY_HEADER, self.key)))
        return answer

    async def withdraw(self, request_id: str) -> None:
        """Tell the engine that nobody waits for a request any more; best effort, not to be cancelled."""
        await asyncio.shield(asyncio.ensure_future(self._withdraw(request_id)))

    async def _withdraw(self, request_id: str) -> None:
        text = request_id.encode()
        request = messages.ModelInferRequest(model_name="ar_sampler")
        request.inputs.add(name="cancel_id", datatype="BYTES", shape=[1])
        request.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        with suppress(grpc.aio.AioRpcError):  # there may be no such stage, or it has nothing of that id
            await self.call(_INFER, request.SerializeToString(), timeout=_WITHDRAW_S)

    def url(self, path: str) -> str:
        """Of the HTTP endpoint."""
        return f"http://{self.host}:{self.http_port}{path}"

    async def ready(self) -> bool:
        """Whether Triton says that all its models are."""
        try:
            async with self.session.get(self.url("/v2/health/ready"), timeout=_soon()) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def reload(self, model: str) -> str:
        """Load a model anew whose process has died; returns Triton's complaint, or nothing."""
        for verb in ("unload", "load"):
            url = self.url(f"/v2/repository/models/{model}/{verb}")
            try:
                async with self.session.post(url, headers={HTTP_KEY_HEADER: self.key}) as answer:
                    if answer.status != 200:
                        return f"{verb}: {(await answer.text())[:500]}"
            except (aiohttp.ClientError, OSError) as error:
                return f"{verb}: {error}"
        return ""

    async def metrics(self) -> bytes:
        """Triton's own text of metrics; empty where it does not answer."""
        url = f"http://{self.host}:{self.metrics_port}/metrics"
        try:
            async with self.session.get(url, timeout=_soon()) as answer:
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return b""

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()
        await self._channel.close()


def _soon() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=3)
