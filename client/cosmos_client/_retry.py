"""Asking again where the server never began, and only there."""

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cosmos_client._errors import NotAdmitted, NotReached, RequestCancelled

PATIENCE_S = 60.0  # a model is loaded again, or a slot gets free, within a minute or not soon
RECONNECT_S = 10.0  # a server that is away for longer does not just stumble
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 15.0

Result = TypeVar("Result")


def ask_again(
    call: Callable[[], Result],
    *,
    reconnect_s: float,
    on_wait: Callable[[str], None],
    wait: Callable[[float], object] = time.sleep,
) -> Result:
    """What `call` returns, called again with growing delays while the server does not admit it.

    Only `NotAdmitted` is tried again: after any other failure the request may have run.

    Args:
        reconnect_s: how long to try where no connection can be made, in seconds. Where a server
            answers, it is `PATIENCE_S`.
        on_wait: told once, before the first delay, why the call has to wait.
        wait: waits so many seconds; returns True if there is no more need to.

    Raises:
        RequestCancelled: `wait` said so.
        Exception: whatever `call` raised last.
    """
    begin, told, delays = time.monotonic(), False, _delays()
    while True:
        try:
            return call()
        except NotAdmitted as error:
            patience = reconnect_s if isinstance(error, NotReached) else PATIENCE_S
            left = begin + patience - time.monotonic()
            if left <= 0:
                raise
            if not told:
                told = True
                on_wait(f"{error}; asking again for up to {patience:g} s")
            if wait(min(next(delays), left)) is True:
                raise RequestCancelled("not sent") from error


def _delays() -> Iterator[float]:
    """Twice as long each time, with some chance, so that many clients do not come back at once."""
    delay = _FIRST_DELAY_S
    while True:
        yield delay * random.uniform(0.8, 1.2)
        delay = min(2 * delay, _LONGEST_DELAY_S)
