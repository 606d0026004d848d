"""Requests that were cancelled before they arrived."""

import time
from collections.abc import Callable

from cosmos_triton.errors import InvalidInput

MAX_ID_BYTES = 128
_REMEMBER_S = 60.0  # longer than a request spends in the stages before the sampler
_MAX_REMEMBERED = 10_000  # the oldest is forgotten: a megabyte of ids at most


def check_cancel_id(request_id: str) -> None:
    """Raises InvalidInput for what may not be cancelled: an empty id is that of all requests without one."""
    if not request_id:
        raise InvalidInput("cancel_id is empty; a request without an id cannot be cancelled")
    _check_length("cancel_id", request_id)


def check_request_id(request_id: str) -> None:
    """Raises InvalidInput for an id that is too long. A request need not have one."""
    _check_length("the request's id", request_id)


class Withdrawn:
    """Ids whose requests are refused when they arrive; each is remembered for a while and spent by one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}  # in the order of withdrawal, so the oldest is first

    def add(self, request_id: str) -> None:
        """Refuse the next request of this id."""
        self._forget()
        self._until.pop(request_id, None)
        self._until[request_id] = self._clock() + _REMEMBER_S

    def take(self, request_id: str) -> bool:
        """Whether the request of this id is to be refused; asked once."""
        return self._until.pop(request_id, 0.0) > self._clock()

    def __len__(self) -> int:
        return len(self._until)

    def _forget(self) -> None:
        now = self._clock()
        while self._until and (len(self._until) >= _MAX_REMEMBERED or self._oldest() <= now):
            del self._until[next(iter(self._until))]

    def _oldest(self) -> float:
        return next(iter(self._until.values()))


def _check_length(what: str, request_id: str) -> None:
    size = len(request_id.encode())
    if size > MAX_ID_BYTES:
        raise InvalidInput(f"{what} has {size} bytes; at most {MAX_ID_BYTES} are taken")
