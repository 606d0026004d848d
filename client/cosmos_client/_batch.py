"""Many clips: sent some at a time, each result told and recorded as it comes."""

import errno
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from cosmos_client._clips import BadLine, Clip
from cosmos_client._errors import (
    CosmosClientError,
    NotReached,
    OutputError,
    RequestCancelled,
    ServerStopping,
)
from cosmos_client._results import CANCELLED, FAILED, OK, ClipResult, Record, not_sent, result_of
from cosmos_client._retry import RECONNECT_S, ask_again
from cosmos_client._world import World

# What can be wrong with one name; everything else that stops a file stops those after it too.
_OF_ONE_NAME = {errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTEMPTY}


class BatchStopped(Exception):
    """A batch has ended early, because the clips that were left would have met the same failure.

    Attributes:
        reason: the failure.
        results: what became of each line, in the list's order.
    """

    def __init__(self, reason: CosmosClientError, results: list[ClipResult]) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.results = results


def run_batch(
    lines: Sequence[Clip | BadLine],
    generate: Callable[[Clip, str], World],
    *,
    outputs: Mapping[int, Path],
    results: Path,
    concurrency: int,
    on_result: Callable[[ClipResult], None],
    on_wait: Callable[[str], None],
    stop: Callable[[], None],
    kept: Mapping[int, ClipResult] | None = None,
) -> list[ClipResult]:
    """Sends every clip, `concurrency` at a time, and returns what became of each line, in order.

    Args:
        generate: makes the world of a clip, under a request id.
        outputs: where the video of each line goes.
        results: this file is written anew, whole, after every clip.
        on_result: called in this thread as each line is done.
        on_wait: told why a clip has to wait, from any thread.
        stop: makes the calls of `generate` that are under way return soon.
        kept: results of an earlier run; their lines are not sent.

    Raises:
        BatchStopped: no clip after this one could have been made or kept: no server answers, or
            nothing can be written. What the server still finishes is waited for and kept, unless
            there is no room for it.
        OutputError: `results` cannot be written.

    An interruption (Ctrl-C) calls `stop`, tells and records what was finished, puts the rest into
    `results` as cancelled, and goes on as it is.
    """
    kept = kept or {}
    run = _Run(generate, outputs, Record(results, lines, kept), on_result, on_wait, stop, told=set(kept))
    futures: dict[int, Future[ClipResult]] = {}
    with ThreadPoolExecutor(concurrency, thread_name_prefix="clip") as pool:
        try:
            for line in lines:
                if line.line not in kept:
                    futures[line.line] = pool.submit(run.send, line)
            for future in as_completed(futures.values()):
                run.take(future.result())
                if run.reason is not None:
                    break
            run.settle(pool, futures)
        except BaseException:
            stop()
            run.settle(pool, futures)
            raise
    if run.reason is not None:
        raise BatchStopped(run.reason, run.record.results()) from run.reason
    return run.record.results()


class _Run:
    """A batch under way: `send` runs in the pool's threads, the rest in the caller's."""

    def __init__(
        self,
        generate: Callable[[Clip, str], World],
        outputs: Mapping[int, Path],
        record: Record,
        on_result: Callable[[ClipResult], None],
        on_wait: Callable[[str], None],
        stop: Callable[[], None],
        told: set[int],
    ) -> None:
        self.record = record
        self.reason: CosmosClientError | None = None  # why the batch is given up
        self._generate = generate
        self._outputs = outputs
        self._on_result = on_result
        self._on_wait = on_wait
        self._stop = stop
        self._told = told
        self._stopping = threading.Event()

    def send(self, line: Clip | BadLine) -> ClipResult:
        """Makes one clip's world and saves its video; every failure is a result."""
        if isinstance(line, BadLine):
            return result_of(line, FAILED)
        if self._stopping.is_set():
            return not_sent(line)
        begin = time.monotonic()
        result = replace(result_of(line, OK), request_id=uuid.uuid4().hex)
        try:
            world = self._ask(line, str(result.request_id))
            world.save(output := self._outputs[line.line])
        except CosmosClientError as error:
            self._give_up_on(error)
            status = CANCELLED if isinstance(error, RequestCancelled) else FAILED
            return replace(result, status=status, error=str(error), seconds=_since(begin))
        return replace(
            result,
            output=str(output),
            seconds=_since(begin),
            seed=world.report.get("seed", result.seed),
            report=world.report,
        )

    def _ask(self, clip: Clip, request_id: str) -> World:
        return ask_again(
            lambda: self._generate(clip, request_id),
            reconnect_s=RECONNECT_S,
            on_wait=lambda why: self._on_wait(f"{clip.visual_input}: {why}"),
            wait=self._stopping.wait,
        )

    def _give_up_on(self, error: CosmosClientError) -> None:
        """Ends the batch if the clips that are left would fail in the same way."""
        no_room = isinstance(error, OutputError) and error.errno not in _OF_ONE_NAME
        if not no_room and not isinstance(error, NotReached | ServerStopping):
            return
        self.reason = self.reason or error
        self._stopping.set()
        if no_room:  # while a server that stops may still finish what it has begun
            self._stop()

    def take(self, result: ClipResult) -> None:
        """Records a result and tells it."""
        try:
            self.record.add(result)
        finally:
            self._tell(result)

    def settle(self, pool: ThreadPoolExecutor, futures: Mapping[int, "Future[ClipResult]"]) -> None:
        """Waits for what is under way, then records and tells it, and records the rest as cancelled."""
        self._stopping.set()
        pool.shutdown(cancel_futures=True)
        try:
            self.record.settle(futures)
        finally:
            for result in self.record.results():
                self._tell(result)

    def _tell(self, result: ClipResult) -> None:
        # Once the batch is given up, its reason is told, and not by every clip.
        silent = result.status == CANCELLED or (self.reason is not None and result.status == FAILED)
        if result.line not in self._told and not silent:
            self._on_result(result)
            self._told.add(result.line)


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)
