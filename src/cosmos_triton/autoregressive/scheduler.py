"""Who runs next: an engine's queue, slots, deadlines and cancellations.

A scheduler is plain data: it knows no thread, no clock and no device. The engine calls it under a lock and
tells it the time and what the device has done. Requests get slots, and their prefixes are processed, in the
order in which they came.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.autoregressive.commands import Decode, Prefill, Start
from cosmos_triton.autoregressive.requests import Generation, GenerationRequest
from cosmos_triton.errors import Cancelled, CosmosError, DeadlineExceeded, Unavailable

OnDone = Callable[[Generation | BaseException], None]


@dataclass(eq=False)
class Job:
    """A request on its way through the engine. Times are seconds of one monotonic clock."""

    request: GenerationRequest
    prefix: NDArray[np.int64]  # [P]
    length: int  # tokens of the finished sequence
    on_done: OnDone
    submitted: float
    slot: int = -1  # none yet
    filled: int = 0  # prefix tokens that the device was told to process
    position: int = field(init=False)  # of the last known token
    passes: int = 0
    started: float = 0.0  # when it got its slot
    prefilled: float = 0.0
    cancelled: bool = False
    ended: bool = False  # has its outcome

    def __post_init__(self) -> None:
        self.position = len(self.prefix) - 1

    @property
    def to_fill(self) -> int:
        """Prefix tokens of the prefill: all but the last, which the first decode pass feeds."""
        return len(self.prefix) - 1

    @property
    def generated(self) -> int:
        """Tokens so far."""
        return self.position + 1 - len(self.prefix)

    @property
    def to_generate(self) -> int:
        """Tokens in all."""
        return self.length - len(self.prefix)

    @property
    def complete(self) -> bool:
        """Whether every token is known."""
        return self.position == self.length - 1

    def overdue(self, now: float) -> bool:
        """Whether its time limit has passed."""
        limit = self.request.deadline_s
        return limit is not None and now - self.submitted >= limit

    def advance(self, position: int) -> int:
        """Take note of a pass that made `position` the last known one; returns how many tokens it gave."""
        tokens, self.position = position - self.position, position
        self.passes += 1
        return tokens


@dataclass(frozen=True)
class Step:
    """A command to the device and the jobs it serves, in the order of its slots."""

    command: Prefill | Decode
    jobs: tuple[Job, ...]


class Scheduler:
    """The jobs of an engine.

    Args:
        slots: sequences that run at once.
        max_queue: jobs that may wait for a slot.
        prefill_chunk: most prefix tokens of one `Prefill`.
    """

    def __init__(self, slots: int, max_queue: int, prefill_chunk: int) -> None:
        self.slots = slots
        self._max_queue = max_queue
        self._prefill_chunk = prefill_chunk
        self._queue: deque[Job] = deque()
        self._running: list[Job] = []  # in order of arrival
        self._free = list(range(slots))

    @property
    def running(self) -> int:
        """Jobs in slots."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Jobs without a slot."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether there is any job."""
        return bool(self._running or self._queue)

    @property
    def jobs(self) -> list[Job]:
        """All, those in slots first, each group in order of arrival."""
        return [*self._running, *self._queue]

    @property
    def filled_rows(self) -> int:
        """Cache rows that hold a token, over all slots."""
        return sum(max(job.filled, job.position) for job in self._running)

    def add(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Unavailable: the queue is full. Jobs for which a slot is free do not count as waiting.
        """
        if self.queued - len(self._free) >= self._max_queue:
            raise Unavailable(f"the queue of {self._max_queue} videos is full")
        self._queue.append(job)

    def cancel(self, request_id: str) -> bool:
        """Mark every job of this id as cancelled; whether there was one."""
        jobs = [job for job in self.jobs if job.request.id == request_id]
        for job in jobs:
            job.cancelled = True
        return bool(jobs)

    def given_up(self, now: float) -> list[tuple[Job, CosmosError]]:
        """The jobs that were cancelled or are overdue, each with what its owner is told."""
        return [(job, _why(job)) for job in self.jobs if job.cancelled or job.overdue(now)]

    def admit(self, now: float) -> Start | None:
        """Give a free slot to the job that waits longest, if there are both."""
        if not self._queue or not self._free:
            return None
        job = self._queue.popleft()
        job.slot, job.started = self._free.pop(), now
        self._running.append(job)
        return Start(job.slot, job.prefix, job.request.text_embeddings, job.request.parameters)

    def plan(self) -> list[Step]:
        """What the device does next: a chunk of the oldest unfinished prefix, then a pass over the others.

        The chunk counts as processed at once: the device takes commands in order.
        """
        steps = []
        filling = next((job for job in self._running if job.filled < job.to_fill), None)
        if filling is not None:
            start, filling.filled = filling.filled, min(filling.filled + self._prefill_chunk, filling.to_fill)
            steps.append(Step(Prefill(filling.slot, start, filling.filled), (filling,)))
        decoding = tuple(job for job in self._running if job.filled == job.to_fill)
        if decoding:
            steps.append(Step(Decode(tuple(job.slot for job in decoding)), decoding))
        return steps

    def end(self, job: Job) -> bool:
        """Take the job out and free its slot; False if that has happened before."""
        if job.ended:
            return False
        job.ended = True
        if job.slot < 0:
            self._queue.remove(job)
        else:
            self._running.remove(job)
            self._free.append(job.slot)
        return True


def _why(job: Job) -> CosmosError:
    progress = f"after {job.generated} of {job.to_generate} tokens"
    if job.cancelled:
        return Cancelled(f"request {job.request.id!r} was cancelled {progress}")
    return DeadlineExceeded(f"the request's limit of {job.request.deadline_s:g} s passed {progress}")
