"""The engine: one outcome for every request, whatever happens."""

import random
import threading
import time

import numpy as np
import pytest
import torch

from cosmos_triton.autoregressive.engine import Engine
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.requests import Generation, GenerationRequest
from cosmos_triton.autoregressive.settings import EngineSettings, automatic_window
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from cosmos_triton.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
)
from support.engines import (
    BASE,
    PATIENCE_S,
    TEXT_ROWS,
    VIDEO2WORLD,
    Outcome,
    Recorder,
    alone,
    request,
    running,
    submit,
    until,
)
from support.tiny_autoregressive import architecture, network


@pytest.mark.parametrize("latents", [1, 2])
def test_a_video_is_its_context_continued(latents: int) -> None:
    wanted = request(3, latents=latents)
    with running() as engine:
        video = submit(engine, wanted).video()
    assert video.tokens.shape == (5, 4, 6)
    assert video.tokens.dtype == np.int32
    assert (video.tokens[:latents] == wanted.context_tokens).all()
    assert video.tokens_generated == video.passes == (5 - latents) * 24
    assert min(video.queue_seconds, video.prefill_seconds, video.decode_seconds) >= 0
    assert len(np.unique(video.tokens[latents:])) > 10


def test_seeds_matter_and_repeat() -> None:
    assert (alone(request(1)) == alone(request(1))).all()
    other = GenerationRequest("x", request(1).context_tokens, None, SamplingParameters(2, 1.0, 0.8))
    assert (alone(request(1)) != alone(other)).any()


@pytest.mark.parametrize(("net", "video2world"), [(BASE, False), (VIDEO2WORLD, True)])
@pytest.mark.parametrize("window", [1, 4])
def test_eight_at_once_get_what_each_gets_alone(
    net: AutoregressiveTransformer, video2world: bool, window: int
) -> None:
    wanted = [request(seed, latents=2 + seed % 3, video2world=video2world) for seed in range(8)]
    with running(net, max_videos=8, window=window, prefill_chunk=7) as engine:
        outcomes = [submit(engine, each) for each in wanted]
        videos = [outcome.video() for outcome in outcomes]
    for seed in (0, 5):
        assert (videos[seed].tokens == alone(wanted[seed], net)).all()


@pytest.mark.parametrize("lag", [1, 3])
def test_a_host_that_runs_ahead_of_its_device_changes_nothing(lag: int) -> None:
    """As on a GPU: what a step did is seen some steps later, when slots may have new owners."""
    wanted = [request(seed, latents=2 + seed % 3) for seed in range(6)]
    with running(max_videos=2, window=3, prefill_chunk=9) as engine:
        engine._runner.lag = lag
        outcomes = [submit(engine, each) for each in wanted]
        videos = [outcome.video() for outcome in outcomes]
    for each, video in zip(wanted, videos, strict=True):
        assert (video.tokens == alone(each)).all()


def test_requests_join_a_running_batch_and_leave_it() -> None:
    seen = Recorder()
    with running(max_videos=3, observer=seen) as engine:
        first = submit(engine, request(0, latents=1))
        until(lambda: seen.tokens > 10, "the first video has begun")
        second = submit(engine, request(1, latents=4))
        assert (second.video().tokens == alone(request(1, latents=4))).all()
        assert first.received.empty()
        assert seen.active == 1
        assert (first.video().tokens == alone(request(0, latents=1))).all()


def test_slots_are_given_first_come_first_served() -> None:
    order: list[int] = []
    done = threading.Semaphore(0)
    with running(max_videos=2) as engine:
        for seed in range(6):

            def finish(outcome: Generation | BaseException, seed: int = seed) -> None:
                order.append(seed)
                done.release()

            engine.submit(request(seed, latents=4), finish)
        for _ in range(6):
            assert done.acquire(timeout=PATIENCE_S)
    assert order == sorted(order)


def test_cancelling_frees_the_slot_for_the_next() -> None:
    seen = Recorder()
    with running(max_videos=1, observer=seen) as engine:
        first, second = submit(engine, request(0, latents=1)), submit(engine, request(1))
        until(lambda: seen.tokens > 3, "the first video has begun")
        assert engine.cancel("r0")
        assert isinstance(first.any(), Cancelled)
        assert (second.video().tokens == alone(request(1))).all()
        assert not engine.cancel("r0")
        until(lambda: seen.active == 0, "every slot is free")


def test_a_waiting_request_can_be_cancelled() -> None:
    with running(max_videos=1) as engine:
        first, second = submit(engine, request(0)), submit(engine, request(1))
        assert engine.cancel("r1")
        assert isinstance(second.any(), Cancelled)
        assert first.received.empty()
        first.video()


def test_an_overdue_request_ends_where_it_is() -> None:
    with running(max_videos=1) as engine:
        first = submit(engine, request(0, latents=1, deadline_s=0.05))
        waiting = submit(engine, request(1, latents=1, deadline_s=0.01))
        patient = submit(engine, request(2, latents=4, deadline_s=PATIENCE_S))
        for outcome in (first, waiting):
            error = outcome.any()
            assert isinstance(error, DeadlineExceeded)
            assert "s passed after" in str(error)
        assert (patient.video().tokens == alone(request(2, latents=4))).all()


def test_a_full_queue_refuses_at_once() -> None:
    with running(max_videos=1, max_queue=2) as engine:
        accepted = [submit(engine, request(seed, latents=4)) for seed in range(3)]
        with pytest.raises(Unavailable, match="queue of 2 videos is full"):
            submit(engine, request(9))
        for outcome in accepted:
            outcome.video()
        submit(engine, request(9, latents=4)).video()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"context_tokens": np.zeros((5, 4, 6), np.int32)}, "from 1 to 4"),
        ({"context_tokens": np.zeros((0, 4, 6), np.int32)}, "from 1 to 4"),
        ({"context_tokens": np.zeros((2, 4, 5), np.int32)}, r"\[2, 4, 5\]"),
        ({"context_tokens": np.full((1, 4, 6), 96)}, "token 96 is not in 0..95"),
        ({"context_tokens": np.full((1, 4, 6), -1)}, "token -1"),
        ({"context_tokens": np.zeros((1, 4, 6))}, "float64"),
        ({"text_embeddings": np.zeros((TEXT_ROWS, 24))}, "takes no text"),
    ],
)
def test_unfit_requests_are_refused_before_they_are_taken(options: dict[str, object], reason: str) -> None:
    values = {"context_tokens": np.zeros((1, 4, 6), np.int32), "text_embeddings": None, **options}
    unfit = GenerationRequest(id="x", parameters=SamplingParameters(0, 1.0, 0.8), **values)  # type: ignore[arg-type]
    with running() as engine:
        neighbour = submit(engine, request(1, latents=4))
        with pytest.raises(InvalidInput, match=reason):
            submit(engine, unfit)
        neighbour.video()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "needs text"),
        (np.zeros((5, 24)), r"\[5, 24\]"),
        (np.full((TEXT_ROWS, 24), np.nan), "finite"),
    ],
)
def test_video2world_needs_fitting_text_embeddings(text: np.ndarray | None, reason: str) -> None:
    unfit = GenerationRequest("x", request().context_tokens, text, SamplingParameters(0, 1.0, 0.8))
    with running(VIDEO2WORLD) as engine, pytest.raises(InvalidInput, match=reason):
        submit(engine, unfit)


def test_stop_fails_what_is_left_and_refuses_the_rest() -> None:
    with running(max_videos=1) as engine:
        outcomes = [submit(engine, request(seed)) for seed in range(3)]
        engine.stop()
        for outcome in outcomes:
            assert isinstance(outcome.received.get_nowait(), Unavailable)
        with pytest.raises(Unavailable, match="stopping"):
            submit(engine, request(5))
        engine.stop()


def test_stop_can_wait_for_what_runs() -> None:
    with running(max_videos=1) as engine:
        outcomes = [submit(engine, request(seed, latents=4)) for seed in range(2)]
        engine.stop(drain_s=PATIENCE_S)
        for outcome in outcomes:
            outcome.video()


class Dying(AutoregressiveTransformer):
    def forward(self, *args: object) -> torch.Tensor:  # type: ignore[override]
        raise SystemError("out of everything")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dying_thread_takes_every_request_to_its_outcome() -> None:
    net = network(architecture())
    net.__class__ = Dying
    with running(net, max_videos=1) as engine:
        outcomes = []
        for seed in range(3):
            try:
                outcomes.append(submit(engine, request(seed)))
            except Unavailable:  # the thread was dead by then
                assert seed > 0
        for outcome in outcomes:
            error = outcome.any()
            assert isinstance(error, Unavailable)
            assert "has failed (SystemError) with the video inside" in str(error)
        assert not engine.alive
        with pytest.raises(Unavailable, match="has failed"):
            submit(engine, request(9))


def test_a_failing_callback_harms_nobody() -> None:
    def fail(_: object) -> None:
        raise RuntimeError("callback")

    with running(max_videos=2) as engine:
        engine.submit(request(0, latents=4), fail)
        submit(engine, request(1)).video()
        submit(engine, request(2)).video()


def test_an_engine_takes_requests_from_its_start_on() -> None:
    engine = Engine(BASE, EngineSettings(max_videos=1))
    with pytest.raises(Unavailable, match="has not been started"):
        submit(engine, request())
    engine.start()
    submit(engine, request(latents=4)).video()
    engine.stop()


class Failing(Recorder):
    def occupied(self, active: int, queued: int, cache_use: float) -> None:
        super().occupied(active, queued, cache_use)
        raise RuntimeError("an observer's failure is its own")


def test_the_observer_hears_of_all_work() -> None:
    seen = Failing()
    with running(max_videos=2, observer=seen) as engine:
        outcomes = [submit(engine, request(seed, latents=1)) for seed in range(3)]
        until(lambda: seen.tokens > 0, "a video has begun")
        assert (2, 1) in [state[:2] for state in seen.states]
        for outcome in outcomes:
            outcome.video()
    assert seen.tokens == 3 * 96
    assert seen.prefix_tokens == 3 * 23
    assert seen.outcomes == 3
    assert seen.states[-1] == (0, 0, 0.0)
    assert all((active > 0) == (0 < use < 1) for active, _, use in seen.states)


def test_soak_every_answer_equals_the_one_computed_alone_and_no_slot_is_lost() -> None:
    """Requests join, leave, run out of time and are withdrawn, from several threads at once."""
    chance = random.Random(0)
    plans = [
        (seed, chance.choice(["run", "run", "cancel", "limit"]), chance.random() * 0.05) for seed in range(40)
    ]
    expected = {seed: alone(request(seed % 4, latents=3)) for seed in range(4)}
    outcomes: dict[int, Outcome] = {}
    seen = Recorder()
    with running(max_videos=3, max_queue=100, window=2, prefill_chunk=20, observer=seen) as engine:

        def play(share: int) -> None:
            for seed, plan, moment in plans[share::4]:
                limit = moment if plan == "limit" else None
                base = request(seed % 4, latents=3)
                wanted = GenerationRequest(f"s{seed}", base.context_tokens, None, base.parameters, limit)
                outcomes[seed] = submit(engine, wanted)
                time.sleep(moment)
                if plan == "cancel":
                    engine.cancel(f"s{seed}")

        threads = [threading.Thread(target=play, args=(share,)) for share in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kinds = {Generation: 0, Cancelled: 0, DeadlineExceeded: 0}
        for seed, plan, _ in plans:
            outcome = outcomes[seed].any()
            kinds[type(outcome)] += 1  # type: ignore[index]
            if isinstance(outcome, Generation):
                assert (outcome.tokens == expected[seed % 4]).all()
            else:
                assert plan != "run"
            assert outcomes[seed].received.empty()
        until(lambda: seen.active == seen.queued == 0, "no video is left")
        finally_all = [submit(engine, request(seed, latents=3)) for seed in range(3)]
        until(lambda: seen.active == 3, "every slot can still be taken")
        for outcome in finally_all:
            outcome.video()
    assert all(kinds.values()), kinds


def test_settings_out_of_range_are_refused() -> None:
    for field, value in [("max_videos", -1), ("window", -1), ("prefill_chunk", 0), ("draft_source", "x")]:
        with pytest.raises(ConfigurationError, match=field):
            EngineSettings(**{field: value})  # type: ignore[arg-type]


def test_the_automatic_window_keeps_a_pass_within_its_budget() -> None:
    assert [automatic_window(videos) for videos in (1, 2, 3, 4, 8, 16, 33, 64, 200)] == [
        32,
        32,
        16,
        16,
        8,
        4,
        1,
        1,
        1,
    ]
