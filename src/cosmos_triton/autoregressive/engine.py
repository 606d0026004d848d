"""Many videos in one batch: requests join and leave a running engine at any step.

One thread drives the device; a `Scheduler` says who runs next. Each step of the thread's loop ends the
requests that were cancelled or are overdue, moves waiting requests into free slots, launches one chunk of one
prefix and one decode pass over every sequence whose prefix is in the cache, and collects what the device has
finished. Submitting a request promises one outcome: its callback is called exactly once, whatever happens to
the request, the engine or the thread.

With offloaded weights the engine works in batches of requests: it loads the weights when it is its turn on
the device, runs the requests that wait by then, as many as have slots, and unloads. Later requests wait for
the next batch, so that a busy engine cannot keep the other stages off the device.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.commands import Prefill
from cosmos_triton.autoregressive.device_memory import DeviceMemory
from cosmos_triton.autoregressive.requests import Generation, GenerationRequest, check_text, prefix_of
from cosmos_triton.autoregressive.runner import Launched, Runner
from cosmos_triton.autoregressive.scheduler import Job, OnDone, Scheduler, Step
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from cosmos_triton.errors import CosmosError, Unavailable

_log = logging.getLogger(__name__)

_ASK_AGAIN_S = 0.02  # while another stage has the device


class EngineObserver(Protocol):
    """Hears what the engine does, on the engine's thread; for metrics."""

    def prefilled(self, tokens: int, seconds: float) -> None:
        """A request's prefix is in the cache, `seconds` after it got its slot."""

    def decoded(self, videos: int, tokens: int, seconds: float) -> None:
        """A pass over `videos` videos gave `tokens` tokens, `seconds` after the pass before it."""

    def finished(self, outcome: Generation | BaseException) -> None:
        """A request that was accepted has its outcome."""

    def occupied(self, active: int, queued: int, cache_use: float) -> None:
        """Videos in slots and in the queue, and the share of cache rows filled, have changed."""


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
        memory: DeviceMemory | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self._runner = Runner(network, self.settings, memory)
        self._memory = self._runner.memory
        self._observer = observer
        self._changed = threading.Condition()  # guards the three below
        self._scheduler = Scheduler(self._runner.slots, self.settings.max_queue, self.settings.prefill_chunk)
        self._refusal: str | None = "the engine has not been started"
        self._stopping = False
        self._launched: deque[tuple[Step, Launched]] = deque()  # not collected yet
        self._last_pass = time.monotonic()
        self._reported = (0, 0)  # videos in slots and in the queue, as the observer was told last
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def architecture(self) -> AutoregressiveArchitecture:
        """Of the model served."""
        return self._runner.architecture

    @property
    def alive(self) -> bool:
        """Whether it takes requests, now or after `start`: false once its thread has died of an error."""
        return self._stopping or self._thread.is_alive() or self._thread.ident is None

    def start(self) -> None:
        """Compile, capture, and begin to take requests. Returns when the first can run at full speed.

        Raises whatever the network raises when it first runs.
        """
        self._thread.start()
        self._ready.result()

    def submit(self, request: GenerationRequest, on_done: OnDone) -> None:
        """Take a request. If this returns, `on_done` is called exactly once, with a result or an exception.

        It is called on the engine's thread, so it must return soon.

        Raises:
            InvalidInput: the request does not fit the model; `on_done` is not called.
            Unavailable: the queue is full or the engine does not run; `on_done` is not called.
        """
        prefix = prefix_of(request, self.architecture)
        check_text(request, self.architecture, self.settings.text_rows)
        job = Job(request, prefix, self.architecture.sequence_length, on_done, submitted=time.monotonic())
        with self._changed:
            if self._refusal is not None:
                raise Unavailable(self._refusal)
            self._scheduler.add(job)
            self._changed.notify()

    def cancel(self, request_id: str) -> bool:
        """Withdraw every unfinished request of this id; each ends with Cancelled at the next step.

        Returns whether there was one.
        """
        with self._changed:
            found = self._scheduler.cancel(request_id)
            self._changed.notify()
        return found

    def stop(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, let accepted ones finish for up to `drain_s` seconds, fail the rest.

        Returns when every request has its outcome and the thread has ended.
        """
        with self._changed:
            self._refusal = "the server is stopping"
            self._changed.wait_for(lambda: not self._scheduler.busy, timeout=drain_s)
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
            with self._changed:
                self._refusal = self._refusal or f"the engine has failed ({type(error).__name__})"
            self._fail_everything(error)
            self._leave_device()

    def _warm_up(self) -> None:
        self._runner.use_device()
        self._memory.load(wait=True)
        self._runner.warm_up()
        self._memory.unload()
        with self._changed:
            self._refusal = None
        self._ready.set_result(None)

    def _wait_for_work(self) -> bool:
        """Whether to go on, as soon as there is something to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._scheduler.busy or self._launched)
            return not self._stopping

    def _step(self) -> None:
        """One step of the loop: at most one chunk of a prefix and one pass."""
        self._give_up()
        present = self._load()
        if self._occupation() != self._reported:  # some have come and must wait
            self._report_occupation()
        if not present:
            return
        with self._changed:
            steps = self._scheduler.plan()
        for step in steps:
            self._launched.append((step, self._runner.launch(step.command)))
        while len(self._launched) > (self._runner.lag if steps else 0):
            self._collect(*self._launched.popleft())
        if not self._scheduler.running and not self._launched:
            self._memory.unload()

    def _load(self) -> bool:
        """Load the weights if that takes no waiting, and admit who may run now; whether steps can run."""
        if self._memory.present:
            if self._memory.stays:
                self._admit()
            return True
        if not self._scheduler.queued:  # all have been given up: so is the wait for the device
            self._memory.unload()
            return False
        try:
            loaded = self._memory.load()
        except (
            torch.OutOfMemoryError
        ) as error:  # somebody else has the card's memory: later there may be room
            _log.error("the weights do not fit on the card now: %s", error)
            self._fail_everything(
                Unavailable("the card has too little room for the model now; try again later")
            )
            return False
        if loaded:
            self._admit()
            return True
        with self._changed:
            self._changed.wait(_ASK_AGAIN_S)
        return False

    def _give_up(self) -> None:
        """End the requests that were cancelled or are overdue."""
        with self._changed:
            given_up = self._scheduler.given_up(time.monotonic())
        for job, why in given_up:
            self._end(job, why)

    def _admit(self) -> None:
        """Move waiting requests into free slots, the oldest first."""
        while True:
            with self._changed:
                start = self._scheduler.admit(time.monotonic())
            if start is None:
                return
            self._runner.start(start)
            self._report_occupation()

    def _collect(self, step: Step, launched: Launched) -> None:
        """Take note of what a step has done, once the device has done it."""
        positions = launched.wait()
        now = time.monotonic()
        if isinstance(step.command, Prefill):
            (job,) = step.jobs
            if step.command.stop == job.to_fill:
                job.prefilled = now
                self._observe(lambda observer: observer.prefilled(job.to_fill, now - job.started))
            return
        jobs = [job for job in step.jobs if not job.ended]  # some may have been given up meanwhile
        tokens = sum(job.advance(positions[job.slot]) for job in jobs)
        seconds, self._last_pass = now - self._last_pass, now
        self._observe(lambda observer: observer.decoded(len(jobs), tokens, seconds))
        for job in jobs:
            if job.complete:
                self._end(job, self._generation(job, now))

    def _generation(self, job: Job, now: float) -> Generation:
        tokens = self._runner.tokens(job.slot, self.architecture.video_start, job.length)
        prefilled = job.prefilled or job.started  # a prefix of one token has nothing to prefill
        return Generation(
            tokens=tokens.numpy().astype(np.int32).reshape(self.architecture.latent_shape),
            tokens_generated=job.generated,
            passes=job.passes,
            queue_seconds=job.started - job.submitted,
            prefill_seconds=prefilled - job.started,
            decode_seconds=now - prefilled,
        )

    def _end(self, job: Job, outcome: Generation | BaseException) -> None:
        """Free what the job holds and tell its owner, once."""
        with self._changed:
            if not self._scheduler.end(job):
                return
            self._changed.notify_all()  # `stop` may be waiting
        try:
            job.on_done(outcome)
        except BaseException:
            _log.exception("the callback of request %r failed", job.request.id)
        self._observe(lambda observer: observer.finished(outcome))
        self._report_occupation()

    def _leave_device(self) -> None:
        try:
            self._memory.unload()
        except Exception:
            _log.exception("the engine's memory could not be given back")

    def _fail_everything(self, error: BaseException) -> None:
        if not isinstance(error, CosmosError):
            reason = f"the engine has failed ({type(error).__name__}) with the video inside; send it again"
            error = Unavailable(reason)
        with self._changed:
            jobs = self._scheduler.jobs
        for job in jobs:
            self._end(job, error)

    def _occupation(self) -> tuple[int, int]:
        with self._changed:
            return self._scheduler.running, self._scheduler.queued

    def _report_occupation(self) -> None:
        with self._changed:
            self._reported = self._occupation()
            rows = self._scheduler.filled_rows
        cache_use = rows / (self._scheduler.slots * self.architecture.max_sequence)
        self._observe(lambda observer: observer.occupied(*self._reported, cache_use))

    def _observe(self, tell: Callable[[EngineObserver], None]) -> None:
        if self._observer is None:
            return
        try:
            tell(self._observer)
        except Exception:
            _log.exception("the engine's observer failed")
