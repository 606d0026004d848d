"""Many videos in one batch: requests join and leave a running engine at any step.

One thread owns the network. Each step of its loop gives up what was cancelled or is overdue, moves
waiting requests into free slots, processes one chunk of one prompt, and runs one pass over every
sequence whose prompt is done. Both orders are first come, first served. Submitting a request promises one
outcome: its callback is called exactly once, whatever happens to the request, the engine or the thread.

An engine whose weights leave the device works in visits. It brings them in when the device's turn is its own,
runs the requests that wait by then, as many as have slots, and leaves when they are done. Later requests wait
for the next visit, so that a busy engine cannot keep the other stages off the device.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.memory import Memory
from cosmos_triton.autoregressive.requests import (
    Generation,
    GenerationRequest,
    Progress,
    Snapshot,
    check_text,
    prompt_of,
)
from cosmos_triton.autoregressive.runner import Runner, Step
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from cosmos_triton.errors import Cancelled, DeadlineExceeded, Unavailable

__all__ = [
    "Engine",
    "EngineObserver",
    "EngineSettings",
    "Generation",
    "GenerationRequest",
    "OnDone",
    "Snapshot",
]

_log = logging.getLogger(__name__)

_ASK_AGAIN_S = 0.02  # while another stage has the device

OnDone = Callable[[Generation | BaseException], None]
"""Called on the engine's thread, so it must return soon."""


class EngineObserver(Protocol):
    """Hears what the engine does, on the engine's thread; for metrics."""

    def prefilled(self, tokens: int, seconds: float) -> None:
        """A prompt is in the cache."""

    def decoded(self, videos: int, tokens: int, seconds: float) -> None:
        """A pass over `videos` videos gave `tokens` tokens, `seconds` after the pass before it."""

    def finished(self, outcome: Generation | BaseException) -> None:
        """A request that was accepted has its outcome."""

    def occupied(self, active: int, queued: int, cache_use: float) -> None:
        """Videos in slots and in the queue, and the share of cache rows filled, have changed."""


@dataclass(eq=False)
class _Job:
    """A request on its way through the engine. Only the engine's thread changes it once it has a slot."""

    request: GenerationRequest
    prompt: list[int]
    total: int  # length of the whole sequence
    on_done: OnDone
    submitted: float
    slot: int = -1
    filled: int = 0  # prompt tokens given to the network
    position: int = 0  # place of the last known token
    passes: int = 0
    started: float = 0.0
    prefilled: float = 0.0
    cancelled: bool = False
    settled: bool = False  # has its outcome

    @property
    def overdue(self) -> bool:
        limit = self.request.deadline_s
        return limit is not None and time.monotonic() - self.submitted >= limit

    @property
    def to_fill(self) -> int:
        """Prompt tokens of the prefill: all but the last, which the first decode pass feeds."""
        return len(self.prompt) - 1

    @property
    def generated(self) -> int:
        return max(0, self.position + 1 - len(self.prompt))

    def progress(self) -> Progress:
        phase = "queued" if self.slot < 0 else "decode" if self.filled == self.to_fill else "prefill"
        return Progress(self.request.id, phase, self.generated, self.total - len(self.prompt))


@dataclass
class _Launched:
    """A step that the device has been given, and whom it serves."""

    step: Step
    jobs: list[_Job]
    prefill: bool


@dataclass
class _Counts:
    tokens: int = 0
    passes: int = 0
    prefill_tokens: int = 0
    last_pass: float = field(default_factory=time.monotonic)


class Engine:
    """Generates videos, several at a time.

    Args:
        network: the transformer, on its device.
        settings: sizes and policies.
        observer: hears of work done; its exceptions are logged and otherwise ignored.
        memory: where weights and cache are; None: on the device for good.
    """

    def __init__(
        self,
        network: AutoregressiveTransformer,
        settings: EngineSettings | None = None,
        observer: EngineObserver | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self._runner = Runner(network, self.settings, memory)
        self._memory = self._runner.memory
        self._observer = observer
        self._changed = threading.Condition()  # guards the four below
        self._queue: deque[_Job] = deque()
        self._active: list[_Job] = []  # in order of arrival
        self._stopping = False
        self._refusal: str | None = "the engine has not been started"
        self._free = list(range(self._runner.slots))
        self._launched: deque[_Launched] = deque()
        self._counts = _Counts()
        self._reported = (0, 0)  # videos in slots and in the queue, as the observer was told last
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def architecture(self) -> AutoregressiveArchitecture:
        """Of the model served."""
        return self._runner.architecture

    def start(self) -> None:
        """Compile, capture, and begin to take requests. Returns when the first can run at full speed.

        Raises whatever the network raises when it first runs.
        """
        self._thread.start()
        self._ready.result()

    def submit(self, request: GenerationRequest, on_done: OnDone) -> None:
        """Take a request. If this returns, `on_done` is called exactly once, with a result or an exception.

        Raises:
            InvalidInput: the request does not fit the model; `on_done` is not called.
            Unavailable: the queue is full or the engine does not run; `on_done` is not called.
        """
        prompt = prompt_of(request, self.architecture)
        check_text(request, self.architecture, self.settings.text_rows)
        total = self.architecture.video_start + self.architecture.video_tokens
        job = _Job(request, prompt, total, on_done, submitted=time.monotonic())
        with self._changed:
            if self._refusal is not None:
                raise Unavailable(self._refusal)
            waiting = len(self._queue) - len(self._free)  # those whose slot is free do not wait
            if waiting >= self.settings.max_queue:
                raise Unavailable(f"the queue of {self.settings.max_queue} videos is full")
            self._queue.append(job)
            self._changed.notify()

    def cancel(self, request_id: str) -> bool:
        """Withdraw every unfinished request of this id; each ends with Cancelled at the next step.

        Returns whether there was one.
        """
        with self._changed:
            jobs = [job for job in (*self._queue, *self._active) if job.request.id == request_id]
            for job in jobs:
                job.cancelled = True
            self._changed.notify()
        return bool(jobs)

    def snapshot(self) -> Snapshot:
        """What is going on; may be called from any thread at any time."""
        with self._changed:
            return Snapshot(
                alive=self._refusal is None,
                active=len(self._active),
                queued=len(self._queue),
                slots=self._runner.slots,
                cache_use=self._cache_use(),
                tokens=self._counts.tokens,
                passes=self._counts.passes,
                prefill_tokens=self._counts.prefill_tokens,
                videos=tuple(job.progress() for job in (*self._active, *self._queue)),
            )

    def stop(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, let accepted ones finish for up to `drain_s` seconds, fail the rest.

        Returns when every request has its outcome and the thread has ended.
        """
        with self._changed:
            self._refusal = "the server is stopping"
            self._changed.wait_for(lambda: not self._queue and not self._active, timeout=drain_s)
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        error: BaseException = Unavailable("the server is stopping")
        try:
            with torch.inference_mode():
                self._warm_up()
                while self._wait_for_work():
                    self._step()
        except BaseException as failure:
            error = failure
            if self._ready.done():
                _log.exception("the engine's thread died")
            else:
                self._ready.set_exception(failure)
        finally:
            self._fail_everything(error)
            self._leave()

    def _warm_up(self) -> None:
        self._runner.use_device()
        self._memory.arrive(wait=True)
        self._runner.warm_up()
        self._memory.leave()
        with self._changed:
            self._refusal = None
        self._ready.set_result(None)

    def _wait_for_work(self) -> bool:
        """Whether to go on, as soon as there is something to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._queue or self._active or self._launched)
            return not self._stopping

    def _step(self) -> None:
        """One step of the loop: at most one prompt chunk and one pass."""
        self._give_up()
        present = self._begin()
        if (len(self._active), len(self._queue)) != self._reported:  # some have come and must wait
            self._report_occupation()
        if not present:
            return
        filling = next((job for job in self._active if job.filled < job.to_fill), None)
        if filling is not None:
            self._prefill(filling)
        decoding = [job for job in self._active if job.filled == job.to_fill]
        if decoding:
            step = self._runner.decode(tuple(job.slot for job in decoding))
            self._launched.append(_Launched(step, decoding, prefill=False))
        busy = filling is not None or bool(decoding)
        while len(self._launched) > (self._runner.lag if busy else 0):
            self._collect(self._launched.popleft())
        if not self._active and not self._launched:
            self._memory.leave()

    def _begin(self) -> bool:
        """Admit those who may run now; whether the network can."""
        if self._memory.present:
            if self._memory.lasting:
                self._admit()
            return True
        if not self._queue:  # all have been given up
            self._memory.leave()
            return False
        if self._memory.arrive():
            self._admit()
            return True
        with self._changed:
            self._changed.wait(_ASK_AGAIN_S)
        return False

    def _give_up(self) -> None:
        """End the requests that were cancelled or are overdue."""
        with self._changed:
            ended = [job for job in (*self._active, *self._queue) if job.cancelled or job.overdue]
        for job in ended:
            generated = f"after {job.generated} of {job.total - len(job.prompt)} tokens"
            if job.cancelled:
                self._end(job, Cancelled(f"request {job.request.id!r} was cancelled {generated}"))
            else:
                limit = job.request.deadline_s
                self._end(job, DeadlineExceeded(f"the request's limit of {limit:g} s passed {generated}"))

    def _admit(self) -> None:
        """Move waiting requests into free slots, the oldest first."""
        while True:
            with self._changed:
                if not self._queue or not self._free:
                    return
                job = self._queue.popleft()
                job.slot = self._free.pop()
                job.started = time.monotonic()
                job.position = len(job.prompt) - 1
                self._active.append(job)
            request = job.request
            self._runner.start(
                job.slot, torch.tensor(job.prompt), request.text_embeddings, request.parameters
            )
            self._report_occupation()

    def _prefill(self, job: _Job) -> None:
        stop = min(job.filled + self.settings.prefill_chunk, job.to_fill)
        step = self._runner.prefill(job.slot, job.filled, stop)
        job.filled = stop
        self._launched.append(_Launched(step, [job], prefill=True))

    def _collect(self, launched: _Launched) -> None:
        """Take note of what a step has done, once the device has done it."""
        reached = launched.step.wait()
        now = time.monotonic()
        if launched.prefill:
            (job,) = launched.jobs
            if job.filled == job.to_fill and not job.prefilled:
                job.prefilled = now
                self._counts.prefill_tokens += job.to_fill
                self._observe(lambda observer: observer.prefilled(job.to_fill, now - job.started))
            return
        jobs = [job for job in launched.jobs if not job.settled]  # some may have been given up meanwhile
        tokens = 0
        for job in jobs:
            tokens += reached[job.slot] - job.position
            job.position = reached[job.slot]
            job.passes += 1
        seconds, self._counts.last_pass = now - self._counts.last_pass, now
        self._counts.tokens += tokens
        self._counts.passes += 1
        self._observe(lambda observer: observer.decoded(len(jobs), tokens, seconds))
        for job in jobs:
            if job.position == job.total - 1:
                self._end(job, self._generation(job, now))

    def _generation(self, job: _Job, now: float) -> Generation:
        prefix = self.architecture.video_start
        tokens = self._runner.tokens(job.slot, prefix, job.total)
        prefilled = job.prefilled or job.started  # a prompt of one token has nothing to prefill
        return Generation(
            tokens=tokens.numpy().astype(np.int32).reshape(self.architecture.latent_shape),
            tokens_generated=job.generated,
            passes=job.passes,
            queue_seconds=job.started - job.submitted,
            prefill_seconds=prefilled - job.started,
            decode_seconds=now - prefilled,
        )

    def _end(self, job: _Job, outcome: Generation | BaseException) -> None:
        """Free what the job holds and tell its owner, once."""
        with self._changed:
            if job.settled:
                return
            job.settled = True
            if job.slot >= 0:
                self._active.remove(job)
                self._free.append(job.slot)
            else:
                self._queue.remove(job)
            self._changed.notify_all()  # `stop` may be waiting
        try:
            job.on_done(outcome)
        except BaseException:
            _log.exception("the callback of request %r failed", job.request.id)
        self._observe(lambda observer: observer.finished(outcome))
        self._report_occupation()

    def _leave(self) -> None:
        try:
            self._memory.leave()
        except Exception:
            _log.exception("the engine's memory could not be given back")

    def _fail_everything(self, error: BaseException) -> None:
        with self._changed:
            self._refusal = self._refusal or f"the engine has failed ({type(error).__name__})"
            jobs = [*self._active, *self._queue]
        for job in jobs:
            self._end(job, error)

    def _cache_use(self) -> float:
        rows = sum(max(job.filled, job.position) for job in self._active)
        return rows / (self._runner.slots * self.architecture.max_sequence)

    def _report_occupation(self) -> None:
        with self._changed:
            self._reported = (len(self._active), len(self._queue))
            cache_use = self._cache_use()
        self._observe(lambda observer: observer.occupied(*self._reported, cache_use))

    def _observe(self, tell: Callable[[EngineObserver], None]) -> None:
        if self._observer is None:
            return
        try:
            tell(self._observer)
        except Exception:
            _log.exception("the engine's observer failed")
