"""A failed call to the server → the exception of ours that says what it means."""

import re

from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from cosmos_client._contract import (
    BLOCKED,
    DEADLINE_PASSED,
    NOT_ADMITTED,
    PREFIX,
    QUEUE_FULL,
    STOPPING,
)
from cosmos_client._errors import (
    BlockedByGuardrail,
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
from cosmos_client._proxy import Proxy, host_of, proxy_for

_PROXY_REFUSES = re.compile(r"HTTP proxy returned response code (\d+)", re.IGNORECASE)
_NOT_GRPC = re.compile(r"parsing HTTP/2|http1\.x server", re.IGNORECASE)
_NOT_RESOLVED = re.compile(r"errors resolving|DNS resolution failed", re.IGNORECASE)
_REFUSED = re.compile(r"connection refused", re.IGNORECASE)
_CLOSED = re.compile(r"socket closed|connection reset|connection aborted", re.IGNORECASE)
_NOT_CONNECTED = re.compile(r"failed to connect to all addresses", re.IGNORECASE)


def from_triton(error: InferenceServerException, url: str, timeout_s: float) -> CosmosClientError:
    """The exception of ours that says what a failed call to the server at `url` means."""
    code = (error.status() or "").removeprefix("StatusCode.")
    raw = (error.message() or "").strip()
    message = PREFIX.sub("", raw) or "no reason was given"
    match code:
        case "INVALID_ARGUMENT":
            return BlockedByGuardrail(message) if BLOCKED.fullmatch(message) else RequestRefused(message)
        case "UNAVAILABLE" | "NOT_FOUND":
            return _unavailable(raw, message, url, code)
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"no answer from {url} within {timeout_s:g} s")
        case "CANCELLED":
            return RequestCancelled("the request was cancelled")
        case _:
            return ServerFault(f"the server failed ({code or 'no status'}): {message}")


def _unavailable(raw: str, message: str, url: str, code: str) -> CosmosClientError:
    if (problem := _connection_problem(message, url)) is not None:
        return NotReached(problem)
    if DEADLINE_PASSED.match(message):
        return DeadlineExceeded(message)
    if STOPPING.match(message):
        return ServerStopping(f"the server at {url} is stopping")
    if _CLOSED.search(message):
        return ServerUnavailable(f"the connection to {url} was lost before the answer came: {message}")
    kind = NotAdmitted if NOT_ADMITTED.match(raw) or QUEUE_FULL.match(message) else ServerUnavailable
    hint = " (`cosmos-client status` lists what is ready)" if code == "NOT_FOUND" else ""
    return kind(message + hint)


def _connection_problem(message: str, url: str) -> str | None:
    """A sentence for a connection that could not be made; None for a server's own message."""
    if not (_NOT_RESOLVED.search(message) or _NOT_CONNECTED.search(message)):
        return None
    if (proxy := proxy_for(url)) is not None:  # then it is the proxy that gRPC talks to
        return _proxy_problem(message, url, proxy)
    if _NOT_RESOLVED.search(message):
        return f"the host of {url} is not known: its name cannot be resolved"
    if _NOT_GRPC.search(message):
        return f"{url} does not speak gRPC: Triton's gRPC port is 8001 unless set otherwise (8000 is HTTP)"
    if _REFUSED.search(message):
        return f"no server answers at {url} (connection refused)"
    if _CLOSED.search(message):
        return (
            f"{url} closes the connection: it may want TLS or a client certificate, or not speak gRPC "
            "(Triton's gRPC port is 8001 unless set otherwise, 8000 is HTTP)"
        )
    return f"no connection to {url}: {message}"


def _proxy_problem(message: str, url: str, proxy: Proxy) -> str:
    if (refusal := _PROXY_REFUSES.search(message)) is not None:
        what = f"refuses it with status {refusal[1]}"
    elif _NOT_RESOLVED.search(message):
        what = "is not known: its name cannot be resolved"
    elif _REFUSED.search(message):
        what = "does not answer (connection refused)"
    else:
        what = f"lets no connection through: {message}"
    return f"the proxy {proxy}, through which {url} is asked, {what}; no_proxy={host_of(url)} goes around it"
