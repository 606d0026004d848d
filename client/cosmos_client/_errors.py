"""Every exception this client raises on purpose.

    CosmosClientError
    ├── UsageError              the call cannot be sent as it was made: a missing or empty file,
    │                           a value of the wrong type
    ├── RequestRefused          the server looked at the request and refused it; asking again
    │   │                       will not help                                 (INVALID_ARGUMENT)
    │   └── BlockedByGuardrail  a guardrail refused it: `.stage`, `.category`, `.reason`
    ├── ServerUnavailable       no server answers, the model is not loaded, or its queue is full;
    │                           asking later may help               (UNAVAILABLE, NOT_FOUND)
    ├── DeadlineExceeded        no answer within `timeout_s`                 (DEADLINE_EXCEEDED)
    ├── RequestCancelled        the request was withdrawn, by this client or another (CANCELLED)
    ├── ServerFault             the server failed; its log says why              (INTERNAL, ...)
    └── ProtocolError           an answer came that is not what the contract promises

Each message is one sentence that names the offending value.
"""

import re

from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]


class CosmosClientError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(CosmosClientError):
    """The call cannot be sent as it was made."""


class RequestRefused(CosmosClientError):
    """The server refused the request; asking again will not help."""


class BlockedByGuardrail(RequestRefused):
    """A guardrail refused the request.

    Args:
        stage: the stage that refused, e.g. `prompt_guardrail`.
        category: machine-readable reason, e.g. `blocklist`.
        reason: one sentence for a person.
    """

    def __init__(self, stage: str, category: str, reason: str) -> None:
        super().__init__(f"blocked by {stage} ({category}): {reason}")
        self.stage = stage
        self.category = category
        self.reason = reason


class ServerUnavailable(CosmosClientError):
    """No server answers, or it cannot take the request now; asking later may help."""


class DeadlineExceeded(CosmosClientError):
    """No answer came within the request's time limit."""


class RequestCancelled(CosmosClientError):
    """The request was withdrawn before its video was done."""


class ServerFault(CosmosClientError):
    """The server failed while it served the request."""


class ProtocolError(CosmosClientError):
    """An answer came that is not what the contract promises."""


_ENSEMBLE_PREFIX = re.compile(r"^(in ensemble '[^']*', )+")
_BLOCKED = re.compile(r"^blocked by (?P<stage>\w+) \((?P<category>[^)]*)\): (?P<reason>.*)", re.DOTALL)
_NOT_GRPC = re.compile(r"parsing HTTP/2|http1\.x server", re.IGNORECASE)
_NOT_RESOLVED = re.compile(r"errors resolving|DNS resolution failed", re.IGNORECASE)
_REFUSED = re.compile(r"connection refused", re.IGNORECASE)
_CLOSED = re.compile(r"socket closed", re.IGNORECASE)
_NOT_CONNECTED = re.compile(r"failed to connect to all addresses", re.IGNORECASE)


def from_triton(error: InferenceServerException, url: str, timeout_s: float) -> CosmosClientError:
    """The exception of ours that says what a failed call to the server at `url` means."""
    code = (error.status() or "").removeprefix("StatusCode.")
    message = _ENSEMBLE_PREFIX.sub("", error.message() or "").strip() or "no reason was given"
    match code:
        case "INVALID_ARGUMENT":
            blocked = _BLOCKED.match(message)
            return BlockedByGuardrail(**blocked.groupdict()) if blocked else RequestRefused(message)
        case "UNAVAILABLE":
            return ServerUnavailable(_connection_problem(message, url) or message)
        case "NOT_FOUND":
            return ServerUnavailable(f"{message} (`cosmos-client status` lists what is ready)")
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"no answer from {url} within {timeout_s:g} s")
        case "CANCELLED":
            return RequestCancelled("the request was cancelled")
        case _:
            return ServerFault(f"the server failed ({code or 'no status'}): {message}")


def _connection_problem(message: str, url: str) -> str | None:
    """A sentence for a connection that could not be made; None for a server's own message."""
    if _NOT_RESOLVED.search(message):
        return f"the host of {url} is not known: its name cannot be resolved"
    if not _NOT_CONNECTED.search(message):
        return None
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
