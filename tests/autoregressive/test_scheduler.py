"""Who runs next, without a network, a thread or a clock."""

import numpy as np
import pytest

from cosmos_triton.autoregressive.commands import Decode, Prefill
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.requests import GenerationRequest
from cosmos_triton.autoregressive.scheduler import Job, Scheduler
from cosmos_triton.errors import Cancelled, DeadlineExceeded, Unavailable

LENGTH = 20


def job(name: str, *, prefix: int = 5, submitted: float = 0.0, deadline_s: float | None = None) -> Job:
    context = np.zeros((1, 1, prefix), np.int32)
    request = GenerationRequest(name, context, None, SamplingParameters(0, 1.0, 0.8), deadline_s)
    return Job(request, np.arange(prefix), LENGTH, lambda _: None, submitted)


def scheduler(*jobs: Job, slots: int = 2, max_queue: int = 10, prefill_chunk: int = 3) -> Scheduler:
    made = Scheduler(slots, max_queue, prefill_chunk)
    for each in jobs:
        made.add(each)
    return made


def admit_all(made: Scheduler, now: float = 1.0) -> list[int]:
    """Admit until there is no slot or no job; returns the slots given."""
    starts = iter(lambda: made.admit(now), None)
    return [start.slot for start in starts]


def test_slots_are_given_in_order_of_arrival() -> None:
    first, second, third = jobs = [job(name) for name in "abc"]
    made = scheduler(*jobs)
    start = made.admit(now=7.0)
    assert start is not None
    assert (start.prefix == first.prefix).all()
    assert (first.slot, first.started) == (start.slot, 7.0)
    assert len(admit_all(made)) == 1
    assert second.slot != first.slot
    assert (made.running, made.queued, third.slot) == (2, 1, -1)
    assert made.jobs == jobs


def test_a_freed_slot_goes_to_the_one_that_waits_longest() -> None:
    first, second, third, fourth = jobs = [job(name) for name in "abcd"]
    made = scheduler(*jobs)
    admit_all(made)
    assert made.end(second)
    assert not made.end(second)
    assert admit_all(made) == [second.slot]
    assert third.slot == second.slot
    assert made.jobs == [first, third, fourth]


def test_prefixes_go_in_chunks_and_join_the_pass_when_they_are_in() -> None:
    """Of a prefix of 5 tokens 4 are prefilled; the decode pass feeds the last."""
    first, second = job("a"), job("b", prefix=2)
    made = scheduler(first, second)
    a, b = admit_all(made)
    plans = [[step.command for step in made.plan()] for _ in range(4)]
    assert plans == [
        [Prefill(a, 0, 3)],
        [Prefill(a, 3, 4), Decode((a,))],
        [Prefill(b, 0, 1), Decode((a, b))],
        [Decode((a, b))],
    ]


def test_a_prefix_of_one_token_needs_no_prefill() -> None:
    made = scheduler(job("a", prefix=1))
    (slot,) = admit_all(made)
    (step,) = made.plan()
    assert step.command == Decode((slot,))


def test_nothing_runs_before_it_is_admitted() -> None:
    made = scheduler(job("a"))
    assert made.busy
    assert made.plan() == []


def test_a_step_names_the_jobs_of_its_slots() -> None:
    jobs = [job(name, prefix=1) for name in "abc"]
    made = scheduler(*jobs, slots=3)
    admit_all(made)
    made.end(jobs[1])
    (step,) = made.plan()
    assert step.jobs == (jobs[0], jobs[2])
    assert step.command == Decode((jobs[0].slot, jobs[2].slot))


def test_only_those_who_must_wait_fill_the_queue() -> None:
    made = scheduler(job("a"), job("b"), job("c"), slots=2, max_queue=1)  # two have a slot to come
    with pytest.raises(Unavailable, match="the queue of 1 videos is full"):
        made.add(job("d"))
    admit_all(made)
    with pytest.raises(Unavailable):
        made.add(job("d"))
    made.end(made.jobs[0])
    made.add(job("d"))


def test_every_job_of_a_cancelled_name_is_given_up() -> None:
    running, waiting, other = job("a"), job("a"), job("b")
    made = scheduler(running, waiting, other, slots=1)
    admit_all(made)
    running.advance(9)
    assert made.cancel("a")
    assert not made.cancel("z")
    (first, why), (second, _) = made.given_up(now=0.0)
    assert (first, second) == (running, waiting)
    assert isinstance(why, Cancelled)
    assert str(why) == "request 'a' was cancelled after 5 of 15 tokens"


def test_a_limit_runs_from_submission() -> None:
    limited = job("a", submitted=10.0, deadline_s=2.5)
    made = scheduler(limited, job("b"))
    assert made.given_up(now=12.4) == []
    ((overdue, why),) = made.given_up(now=12.5)
    assert overdue is limited
    assert isinstance(why, DeadlineExceeded)
    assert str(why) == "the request's limit of 2.5 s passed after 0 of 15 tokens"


def test_a_job_counts_its_tokens_and_passes() -> None:
    one = job("a")
    assert (one.position, one.to_fill, one.generated, one.to_generate) == (4, 4, 0, 15)
    assert [one.advance(position) for position in (5, 8, 8)] == [1, 3, 0]
    assert (one.generated, one.passes, one.complete) == (4, 3, False)
    one.advance(LENGTH - 1)
    assert one.complete


def test_filled_rows_are_those_of_jobs_in_slots() -> None:
    first, second = job("a", prefix=1), job("b", prefix=3)
    made = scheduler(first, second, job("c"))
    assert made.filled_rows == 0
    admit_all(made)
    first.advance(9)
    assert made.filled_rows == 9 + 2


def test_no_slot_is_lost_or_given_twice() -> None:
    chance = np.random.default_rng(0)
    made, ended = scheduler(slots=3, max_queue=1000), 0
    for step in range(300):
        made.add(job(str(step)))
        admit_all(made)
        slots = [each.slot for each in made.jobs if each.slot >= 0]
        assert len(set(slots)) == len(slots) == made.running <= 3
        for each in list(made.jobs):
            if chance.random() < 0.2:
                ended += made.end(each)
    for each in list(made.jobs):
        ended += made.end(each)
    assert ended == 300
    assert not made.busy
    for name in "abc":
        made.add(job(name))
    assert sorted(admit_all(made)) == [0, 1, 2]
