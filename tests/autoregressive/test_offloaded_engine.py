"""An engine whose weights and cache leave the device: the same tokens, a good neighbour to other stages."""

import gc
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.autoregressive.device_memory import OffloadedMemory
from cosmos_triton.autoregressive.engine import Engine, EngineObserver
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.requests import GenerationRequest
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.errors import Cancelled, DeadlineExceeded, Unavailable
from cosmos_triton.residency.turn import Turn, turn
from support.engines import (
    BASE,
    PATIENCE_S,
    TEXT_ROWS,
    VIDEO2WORLD,
    Outcome,
    Recorder,
    alone,
    request,
    submit,
    until,
)
from support.tiny_autoregressive import architecture, network

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's turns are this test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def offloaded(
    *, video2world: bool = False, observer: EngineObserver | None = None, **settings: object
) -> tuple[Engine, OffloadedMemory]:
    net = network(architecture(video2world=video2world))
    memory = OffloadedMemory(net, CPU)
    values = {"text_rows": TEXT_ROWS, **settings}
    return Engine(net, EngineSettings(**values), observer, memory), memory  # type: ignore[arg-type]


@contextmanager
def running(**settings: object) -> Iterator[Engine]:
    engine, _ = offloaded(**settings)  # type: ignore[arg-type]
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@pytest.mark.parametrize("video2world", [False, True])
@pytest.mark.parametrize("lag", [0, 2])
def test_batches_give_the_tokens_of_a_resident_engine(video2world: bool, lag: int) -> None:
    wanted = [request(seed, latents=2 + seed % 3, video2world=video2world) for seed in range(3)]
    expected = [alone(each, VIDEO2WORLD if video2world else BASE) for each in wanted]
    seen = Recorder()
    engine, memory = offloaded(
        video2world=video2world, observer=seen, max_videos=2, window=3, prefill_chunk=7
    )
    engine._runner.lag = lag
    engine.start()
    for _ in range(2):
        outcomes = [submit(engine, each) for each in wanted]
        for outcome, tokens in zip(outcomes, expected, strict=True):
            assert (outcome.video().tokens == tokens).all()
    until(lambda: seen.active == seen.queued == 0, "no video is left")
    engine.stop()
    assert not memory.present
    assert not any(parameter.any() for parameter in engine._runner.network.parameters())
    assert not engine._runner.cache.keys.any()


def test_weights_come_back_and_the_cache_is_zeros_whatever_was_in_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = dict(network(architecture()).named_parameters())
    net = network(architecture())
    memory = OffloadedMemory(net, CPU)
    assert memory.absent_bytes >= sum(parameter.nbytes for parameter in expected.values())
    cache = memory.cache(5000)
    for there in memory._ranges():
        monkeypatch.setattr(there, "fill", lambda buffer=there.buffer: buffer.fill_(255))
    for _ in range(2):
        assert memory.load()
        assert memory.present
        assert memory.absent_bytes == 0
        assert not cache.any()
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, expected[name]), name
        memory.unload()
        assert not memory.present


def test_those_who_wait_when_the_turn_comes_run_together() -> None:
    seen = Recorder()
    with running(max_videos=3, observer=seen) as engine:
        with turn(CPU):
            outcomes = [submit(engine, request(seed, latents=1)) for seed in range(4)]
            until(lambda: seen.queued == 4, "all wait")
            time.sleep(0.1)
            assert seen.active == 0
        until(lambda: (seen.active, seen.queued) == (3, 1), "as many as have slots run")
        for outcome in outcomes:
            outcome.video()


def test_who_comes_later_waits_for_the_next_batch_and_lets_other_stages_pass() -> None:
    seen = Recorder()
    with running(max_videos=3, observer=seen) as engine:
        first = submit(engine, request(0, latents=1))
        until(lambda: seen.active == 1, "the first runs")
        stage = Turn(CPU)
        later = submit(engine, request(1, latents=1))
        stage.come(wait=True)
        first.received.get_nowait()
        time.sleep(0.1)
        assert (seen.active, seen.queued) == (0, 1)
        assert later.received.empty()
        stage.end()
        assert (later.video().tokens == alone(request(1, latents=1))).all()


def test_cancellation_and_limits_do_not_wait_for_the_turn() -> None:
    with running(max_videos=1) as engine:
        with turn(CPU):
            overdue = submit(engine, request(0, deadline_s=0.05))
            withdrawn = submit(engine, request(1))
            assert engine.cancel("r1")
            assert isinstance(withdrawn.any(), Cancelled)
            assert isinstance(overdue.any(), DeadlineExceeded)
            next_stage = Turn(CPU)
        end = time.monotonic() + PATIENCE_S
        while not next_stage.come(wait=False):
            assert time.monotonic() < end, "an engine without requests keeps its place in the queue"
            time.sleep(0.001)
        next_stage.end()


def test_videos_that_wait_for_the_turn_are_reported() -> None:
    recorder = Recorder()
    net = network(architecture())
    engine = Engine(net, EngineSettings(max_videos=1), recorder, OffloadedMemory(net, CPU))
    engine.start()
    with turn(CPU):
        outcome = submit(engine, request(0, latents=4))
        end = time.monotonic() + PATIENCE_S
        while [state[:2] for state in recorder.states] != [(0, 1)]:
            assert time.monotonic() < end, recorder.states
            time.sleep(0.001)
    outcome.video()
    engine.stop()
    assert [state[:2] for state in recorder.states] == [(0, 1), (1, 0), (0, 0)]


def test_a_stopping_engine_does_not_wait_for_the_turn() -> None:
    with running(max_videos=1) as engine, turn(CPU):
        waiting = submit(engine, request(0))
        engine.stop()
        assert isinstance(waiting.received.get_nowait(), Unavailable)


def test_a_stopped_engine_leaves_the_device() -> None:
    seen = Recorder()
    engine, memory = offloaded(max_videos=1, observer=seen)
    engine.start()
    submit(engine, request(0, latents=1))
    until(lambda: seen.active == 1, "the video runs")
    engine.stop()
    assert not memory.present
    with turn(CPU):
        pass


def test_warming_up_takes_the_turn() -> None:
    engine, _ = offloaded(max_videos=1)
    with turn(CPU):
        starting = threading.Thread(target=engine.start)
        starting.start()
        starting.join(0.1)
        assert starting.is_alive()
        with pytest.raises(Unavailable, match="has not been started"):
            submit(engine, request())
    starting.join(PATIENCE_S)
    submit(engine, request(latents=4)).video()
    engine.stop()


def without_room_once(memory: OffloadedMemory, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache finds no room at one time, and room again at all others."""
    cache = memory._ranges()[1]
    fill, fills = cache.fill, iter(range(1000))

    def fill_if_room() -> None:
        if next(fills) == after:
            raise torch.OutOfMemoryError("no room")
        fill()

    monkeypatch.setattr(cache, "fill", fill_if_room)


def test_an_engine_that_finds_no_room_at_its_start_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, memory = offloaded(max_videos=1)
    without_room_once(memory, 0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        engine.start()
    with pytest.raises(Unavailable):
        engine.submit(request(1), Outcome())
    with turn(CPU):
        engine.stop()


def test_a_card_without_room_fails_those_who_wait_and_not_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, memory = offloaded(max_videos=1)
    without_room_once(memory, 1, monkeypatch)
    engine.start()
    try:
        refused = submit(engine, request(0)).any()
        assert isinstance(refused, Unavailable)
        assert "too little room" in str(refused)
        with turn(CPU):  # its turn was given up
            pass
        submit(engine, request(0)).video()
    finally:
        engine.stop()


def until_gone(memory: OffloadedMemory, seconds: float = 20.0) -> None:
    """Wait for the engine's thread to drop what it has no more work for."""
    end = time.monotonic() + seconds
    while memory.present:
        assert time.monotonic() < end, "weights are still on the device"
        time.sleep(0.001)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["4B", "5B"])
def test_graphs_find_weights_and_cache_where_they_were(name: str) -> None:
    """Two layers of the published width and a small world, with a window."""
    from benchmarks.engine import random_network

    device = torch.device("cuda", 0)
    small = replace(AUTOREGRESSIVE[name], layers=2, latent_shape=(5, 10, 16), yarn=None)
    net = random_network(small, "cuda")
    settings = EngineSettings(max_videos=1, window=4)
    generator = np.random.default_rng(0)
    wanted = []
    for seed in range(3):
        text = None
        if small.text_dim is not None:
            text = generator.standard_normal((512, small.text_dim), dtype=np.float32)
        context = generator.integers(0, small.vocabulary, (1 + seed % 2, 10, 16), dtype=np.int32)
        wanted.append(GenerationRequest(f"r{seed}", context, text, SamplingParameters(seed, 1.0, 0.8)))

    def generated(engine: Engine) -> list[np.ndarray]:
        return [submit(engine, each).video().tokens for each in wanted]

    engine = Engine(net, settings)
    engine.start()
    expected = generated(engine)
    engine.stop()
    del engine
    memory = OffloadedMemory(net, device)
    engine = Engine(net, settings, memory=memory)
    engine.start()
    gc.collect()
    torch.cuda.empty_cache()
    until_gone(memory)
    needed = memory.absent_bytes
    away = torch.cuda.mem_get_info(device)[0]
    for _ in range(2):
        for tokens, same in zip(generated(engine), expected, strict=True):
            assert (tokens == same).all()
    until_gone(memory)
    free = torch.cuda.mem_get_info(device)[0]
    assert abs(free - away) < needed // 8
    with torch.inference_mode():
        assert memory.load(wait=True)
        assert free - torch.cuda.mem_get_info(device)[0] >= needed
        memory.unload()
    engine.stop()
