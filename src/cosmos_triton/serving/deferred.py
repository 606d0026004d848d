"""Answering a request later, from another thread, exactly once.

In Triton's Python backend a deferred request that is never answered hangs its client for ever, and
one answered twice raises. `Reply` makes both impossible: the first answer wins, and a reply that is
dropped unanswered answers INTERNAL on its way out. `DeferredModel` is the base of a model.py whose
stage answers this way.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Protocol

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

from cosmos_triton.serving.failures import error_response
from cosmos_triton.serving.heartbeat import Heartbeat
from cosmos_triton.serving.logs import log_to_triton
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.tensors import read_inputs, response

_log = logging.getLogger(__name__)


class Reply:
    """The one answer to one request.

    Args:
        request: Triton's.
        stage: its name, for the log.
        on_answer: called once, when the answer is out.
    """

    def __init__(self, request: Any, stage: str, on_answer: Callable[[], None] = lambda: None) -> None:
        self._request = request  # its input arrays stay valid for as long as it lives
        self._sender = request.get_response_sender()
        self._stage = stage
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self._answered = False

    def result(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Answer with tensors."""
        self._send(lambda: response(outputs))

    def error(self, error: BaseException) -> None:
        """Answer with a failure."""
        self._send(lambda: error_response(error, self._stage))

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Answer with whatever exception leaves the block."""
        try:
            yield
        except Exception as error:
            self.error(error)

    def _send(self, build: Callable[[], Any]) -> None:
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
            self._on_answer()

    def __del__(self) -> None:
        if not self._answered:
            _log.error("%s: a request was dropped without an answer", self._stage)
            self.error(RuntimeError("dropped"))


class DeferredStage(Protocol):
    """A stage that takes a request now and answers it when it is done."""

    def submit(
        self, inputs: Mapping[str, NDArray[Any]], reply: Reply, request_id: str, timeout_us: int
    ) -> None:
        """Take one request; what is raised is its answer.

        Args:
            inputs: arrays by tensor name.
            reply: where the answer goes.
            request_id: Triton's id of the request.
            timeout_us: the request's own time limit in microseconds; 0 for none.
        """

    @property
    def able(self) -> bool:
        """Whether it can take requests, now or later."""

    def close(self) -> None:
        """Answer what is left and stop."""


class DeferredModel:
    """A Triton Python model around one `DeferredStage`; subclasses name the stage's factory."""

    stage: ClassVar[Callable[[StageSettings[Any], Metrics], DeferredStage]]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Build the stage; an exception here keeps the model from becoming ready."""
        self._name = args["model_name"]
        log_to_triton(self._name)
        self._heartbeat = Heartbeat.of(self._name)
        stage = type(self).stage(StageSettings.from_triton(args), Metrics())
        self._heartbeat.able = lambda: stage.able
        self._stage = stage

    def execute(self, requests: list[Any]) -> None:
        """Hand each request to the stage, which answers later."""
        for request in requests:
            request_id = request.request_id()
            self._heartbeat.holds(request_id)
            reply = Reply(request, self._name, partial(self._heartbeat.answered, request_id))
            with reply.failing():
                self._stage.submit(read_inputs(request), reply, request_id, request.timeout())

    def finalize(self) -> None:
        """End the stage."""
        self._heartbeat.stop()
        self._stage.close()
