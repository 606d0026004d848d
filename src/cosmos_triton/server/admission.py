"""Who is in the server, who may come in, and when it is empty.

The front (`grpc_front`, `http_front`) asks here before it passes a request on, so that a full or leaving
server refuses at once, before any media is decoded. Everything runs on one event loop: no locks.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_MAX_ID_BYTES = 128
_SECONDS = (1, 3, 10, 30, 60, 100, 200, 300, 600, 1200, 3600)


class Refused(Exception):
    """The request was not admitted: nothing of it has been computed, so it may be sent again."""


@dataclass(eq=False)
class Request:
    """One request inside the server.

    Args:
        id: unlike any other, with which it goes through the stages.
        client_id: what its client calls it; may be empty, and others may use the same.
        lost: gets a sentence if a stage dies with the request inside.
    """

    id: str
    client_id: str
    lost: "asyncio.Future[str]"
    began: float = field(default_factory=time.monotonic)


class Admission:
    """Counts requests in and out, and refuses those that find the server full or draining.

    Args:
        most: requests in the server at once; a further one is refused.
        registry: gets the metrics.
    """

    def __init__(self, most: int, registry: CollectorRegistry) -> None:
        self.most = most
        self._inside: dict[str, Request] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._refusal: Callable[[], str | None] = lambda: None
        self.draining = False
        self._started = Counter("cosmos_requests_started", "Requests admitted", registry=registry)
        self._ended = Counter(
            "cosmos_requests_ended", "Requests answered, by outcome", ["outcome"], registry=registry
        )
        self._refused = Counter(
            "cosmos_requests_refused", "Requests not admitted", ["why"], registry=registry
        )
        inside = Gauge("cosmos_requests_in_flight", "Requests in the server, in any stage", registry=registry)
        inside.set_function(lambda: len(self._inside))
        self._seconds = Histogram(
            "cosmos_request_seconds",
            "Seconds from admission to answer",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )

    def __len__(self) -> int:
        return len(self._inside)

    @property
    def ids(self) -> Mapping[str, Request]:
        """Requests inside, by their id."""
        return self._inside

    @contextmanager
    def admitted(self, client_id: str) -> Iterator[Request]:
        """Hold a place for one request while the block runs; its exception decides the outcome's label.

        Raises:
            Refused: the server drains or is full.
            ValueError: the id is longer than 128 bytes.
        """
        if len(client_id.encode()) > _MAX_ID_BYTES:
            raise ValueError(f"the request id has {len(client_id.encode())} bytes, at most {_MAX_ID_BYTES}")
        if self.draining:
            self._refused.labels("draining").inc()
            raise Refused("the server is draining: it finishes what it has and takes nothing new")
        if len(self._inside) >= self.most:
            self._refused.labels("full").inc()
            raise Refused(f"the server is full: it has {len(self._inside)} requests, the most it takes")
        request = Request(own_id(client_id), client_id, asyncio.get_running_loop().create_future())
        self._inside[request.id] = request
        self._empty.clear()
        self._started.inc()
        outcome = "error"
        try:
            yield request
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if request.lost.done():
                outcome = "lost"
            del self._inside[request.id]
            self._ended.labels(outcome).inc()
            self._seconds.labels(outcome).observe(time.monotonic() - request.began)
            if not self._inside:
                self._empty.set()

    def lose(self, ids: set[str], reason: str) -> int:
        """End the requests that a dead stage has taken with it; returns how many there were."""
        lost = [self._inside[name] for name in ids if name in self._inside]
        for request in lost:
            if not request.lost.done():
                request.lost.set_result(reason)
        return len(lost)

    async def empty(self, timeout_s: float) -> bool:
        """Wait until nobody is inside; whether that came within `timeout_s`."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def own_id(client_id: str) -> str:
    """An id unlike any other, in which the client's can be recognised."""
    known = re.sub(r"[^\w.-]", "_", client_id, flags=re.ASCII)[:64]
    return f"{known}-{secrets.token_hex(4)}" if known else secrets.token_hex(8)


async def first_of(*futures: "asyncio.Future[Any]") -> None:
    """Wait until one of them is done; a cancellation leaves them as they are."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
