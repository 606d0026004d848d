"""Every exception this client raises on purpose.

    CosmosClientError
    ├── UsageError              the call cannot be sent as it was made: a missing or empty file,
    │                           a value of the wrong type
    ├── RequestRefused          the server looked at the request and refused it; asking again
    │   │                       will not help                                 (INVALID_ARGUMENT)
    │   └── BlockedByGuardrail  a guardrail refused it: `.stage`, `.category`, `.reason`
    ├── ServerUnavailable       the server cannot take the request now; asking later may help
    │   │                                                         (UNAVAILABLE, NOT_FOUND)
    │   ├── NotAdmitted         its generation was never begun, so asking again repeats no work:
    │   │   │                   the queue is full, the model is being loaded, the server drains
    │   │   └── NotReached      no server answers: no connection could be made
    │   └── ServerStopping      the server is going away; the request may have run in part
    ├── DeadlineExceeded        no answer within `timeout_s`, on whichever side it was noticed
    │                                                                       (DEADLINE_EXCEEDED)
    ├── RequestCancelled        the request was withdrawn, by this client or another (CANCELLED)
    ├── ServerFault             the server failed; its log says why              (INTERNAL, ...)
    ├── ProtocolError           an answer came that is not what the contract promises
    └── OutputError             a result cannot be written: a full disk, a read-only folder

Each message is one sentence that names the offending value.
"""

import os

from cosmos_client._contract import BLOCKED


class CosmosClientError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(CosmosClientError):
    """The call cannot be sent as it was made."""


class RequestRefused(CosmosClientError):
    """The server refused the request; asking again will not help."""


class BlockedByGuardrail(RequestRefused):
    """A guardrail refused the request.

    Attributes:
        stage: the stage that refused, e.g. `prompt_guardrail`.
        category: machine-readable reason, e.g. `blocklist`.
        reason: one sentence for a person.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        if (parts := BLOCKED.fullmatch(message)) is None:
            raise ValueError(f"not a guardrail's refusal: {message!r}")
        self.stage, self.category, self.reason = parts["stage"], parts["category"], parts["reason"]


class ServerUnavailable(CosmosClientError):
    """The server cannot take the request now; asking later may help."""


class NotAdmitted(ServerUnavailable):
    """The request was turned away before its generation began: asking again repeats no work."""


class NotReached(NotAdmitted):
    """No server answers: no connection could be made."""


class ServerStopping(ServerUnavailable):
    """The server is going away; the request may have run in part."""


class DeadlineExceeded(CosmosClientError):
    """No answer came within the request's time limit."""


class RequestCancelled(CosmosClientError):
    """The request was withdrawn before its video was done."""


class ServerFault(CosmosClientError):
    """The server failed while it served the request."""


class ProtocolError(CosmosClientError):
    """An answer came that is not what the contract promises."""


class OutputError(CosmosClientError):
    """A result cannot be written.

    Attributes:
        errno: the operating system's number for what went wrong, where it gave one.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message, errno)
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


def cannot_write(name: str | os.PathLike[str], error: OSError) -> OutputError:
    """The `OutputError` for a failed write to `name`, a file or a stream."""
    return OutputError(f"cannot write {os.fspath(name)}: {reason_of(error)}", error.errno)


def reason_of(error: OSError) -> str:
    """What the operating system said, without its number."""
    return error.strerror or str(error) or type(error).__name__
