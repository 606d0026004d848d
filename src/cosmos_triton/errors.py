"""Every exception this library raises on purpose.

    CosmosError
    ├── InvalidInput        the request or its media cannot be used       → INVALID_ARGUMENT
    │   └── Blocked         a guardrail refused the request               → INVALID_ARGUMENT
    ├── Unavailable         the server cannot take the request now        → UNAVAILABLE
    │   └── DeadlineExceeded  the request's own time limit passed         → UNAVAILABLE
    ├── Cancelled           the client withdrew the request               → CANCELLED
    ├── CheckpointError     a file is missing, damaged or does not fit    → the stage does not start
    └── ConfigurationError  a setting is out of range                     → the stage does not start

Each message is one sentence that names the offending value; clients see it as it stands.
Anything else that escapes a stage is a fault of ours: it is logged with its trace and
answered INTERNAL without detail.
"""


class CosmosError(Exception):
    """Base of all errors raised on purpose."""


class InvalidInput(CosmosError):
    """The request cannot be served as asked; asking again will not help."""


class Blocked(InvalidInput):
    """A guardrail refused the request.

    Args:
        stage: the guardrail stage, `prompt_guardrail` or `video_guardrail`.
        category: machine-readable reason, e.g. `blocklist`.
        reason: one sentence for a person.
    """

    def __init__(self, stage: str, category: str, reason: str) -> None:
        super().__init__(f"blocked by {stage} ({category}): {reason}")
        self.stage = stage
        self.category = category
        self.reason = reason


class Unavailable(CosmosError):
    """The server cannot take the request now; asking later may help."""


class DeadlineExceeded(Unavailable):
    """The request's time limit passed before its video was done."""


class Cancelled(CosmosError):
    """The client withdrew the request."""


class CheckpointError(CosmosError):
    """A checkpoint file is missing, damaged or does not fit the network."""


class ConfigurationError(CosmosError):
    """A setting has a value that cannot work."""
