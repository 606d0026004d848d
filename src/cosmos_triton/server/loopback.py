"""HTTP to servers on this machine, which never goes through a proxy."""

import os
import urllib.request
from collections.abc import Mapping

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def read(url: str, timeout_s: float) -> bytes:
    """What a GET answers.

    Raises:
        OSError: nobody answers in time, or the answer is not 200 (`urllib.error.HTTPError`).
    """
    with _OPENER.open(url, timeout=timeout_s) as answer:
        return bytes(answer.read())


def post(url: str) -> str:
    """What a POST without a body answers, however long that takes; raises like `read`."""
    with _OPENER.open(urllib.request.Request(url, method="POST")) as answer:
        return bytes(answer.read()).decode()


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables under which gRPC, too, reaches this machine without a proxy."""
    excepted = {
        name: ",".join(filter(None, [variables.get(name, ""), *_LOOPBACK]))
        for name in ("no_proxy", "NO_PROXY")
    }
    return {**variables, **excepted}
