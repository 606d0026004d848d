"""Answering a request later, from another thread, exactly once.

In Triton's Python backend a deferred request that is never answered hangs its client for ever, and
one answered twice raises. `Reply` makes both impossible: the first answer wins, and a reply that is
dropped unanswered answers INTERNAL on its way out.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

from cosmos_triton.serving.failures import error_response
from cosmos_triton.serving.tensors import response

_log = logging.getLogger(__name__)


class Reply:
    """The one answer to one request."""

    def __init__(self, request: Any, stage: str) -> None:
        self._request = request  # its input arrays stay valid for as long as it lives
        self._sender = request.get_response_sender()
        self._stage = stage
        self._lock = threading.Lock()
        self._answered = False

    def result(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Answer with tensors."""
        self._send(lambda: response(outputs))

    def error(self, error: BaseException) -> None:
        """Answer with a failure."""
        self._send(lambda: error_response(error, self._stage))

    def cancelled(self) -> bool:
        """Whether the client withdrew (seen only where the model is called directly)."""
        return not self._answered and bool(self._sender.is_cancelled())

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Answer with whatever exception leaves the block."""
        try:
            yield
        except Exception as error:
            self.error(error)

    def _send(self, build: Any) -> None:
        with self._lock:
            if self._answered:
                return
            self._answered = True
            try:
                answer = build()
            except Exception as error:
                answer = error_response(error, self._stage)
            self._sender.send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            self._request = None

    def __del__(self) -> None:
        if not self._answered:
            _log.error("%s: a request was dropped without an answer", self._stage)
            self.error(RuntimeError("dropped"))
