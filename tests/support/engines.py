"""Engines over a tiny random network, requests for them, and what they answer."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from cosmos_triton.autoregressive.engine import Engine, EngineSettings, Generation, GenerationRequest
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from support.tiny_autoregressive import architecture, network

TEXT_ROWS = 6
BASE = network(architecture())
VIDEO2WORLD = network(architecture(video2world=True))
PATIENCE_S = 60.0


class Outcome:
    """Receives what an engine has to say about one request."""

    def __init__(self) -> None:
        self.received: queue.Queue[Generation | BaseException] = queue.Queue()

    def __call__(self, outcome: Generation | BaseException) -> None:
        self.received.put(outcome)

    def any(self) -> Generation | BaseException:
        return self.received.get(timeout=PATIENCE_S)

    def video(self) -> Generation:
        outcome = self.any()
        assert isinstance(outcome, Generation), outcome
        return outcome


@contextmanager
def running(net: AutoregressiveTransformer = BASE, **settings: object) -> Iterator[Engine]:
    engine = Engine(net, EngineSettings(**{"text_rows": TEXT_ROWS, **settings}))  # type: ignore[arg-type]
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def request(
    seed: int = 0, *, latents: int = 2, video2world: bool = False, **options: object
) -> GenerationRequest:
    generator = np.random.default_rng(seed)
    context = generator.integers(0, 96, (latents, 4, 6), dtype=np.int32)
    text = torch.from_numpy(generator.standard_normal((TEXT_ROWS, 24)).astype(np.float32))
    values = {"id": f"r{seed}", "parameters": SamplingParameters(seed, 1.0, 0.8), **options}
    return GenerationRequest(context_tokens=context, text_embeddings=text if video2world else None, **values)  # type: ignore[arg-type]


def submit(engine: Engine, wanted: GenerationRequest) -> Outcome:
    outcome = Outcome()
    engine.submit(wanted, outcome)
    return outcome


def alone(wanted: GenerationRequest, net: AutoregressiveTransformer = BASE) -> np.ndarray:
    with running(net, max_videos=1) as engine:
        return submit(engine, wanted).video().tokens


def until(engine: Engine, condition: str, seconds: float = 20.0) -> None:
    """Wait for an expression over the snapshot `s` to hold."""
    end = time.monotonic() + seconds
    while not eval(condition, {"s": engine.snapshot()}):
        assert time.monotonic() < end, f"{condition} did not come true: {engine.snapshot()}"
        time.sleep(0.001)


class Recorder:
    def __init__(self) -> None:
        self.tokens = self.prompts = self.outcomes = 0
        self.states: list[tuple[int, int, float]] = []

    def prefilled(self, tokens: int, seconds: float) -> None:
        self.prompts += tokens

    def decoded(self, videos: int, tokens: int, seconds: float) -> None:
        self.tokens += tokens

    def finished(self, outcome: object) -> None:
        self.outcomes += 1

    def occupied(self, active: int, queued: int, cache_use: float) -> None:
        self.states.append((active, queued, cache_use))
        raise RuntimeError("an observer's failure is its own")
