"""Engines over a tiny random network, requests for them, and what they answer."""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from cosmos_triton.autoregressive.engine import Engine, EngineObserver
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.requests import Generation, GenerationRequest
from cosmos_triton.autoregressive.settings import EngineSettings
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


class Recorder:
    """An observer: what an engine has told so far."""

    def __init__(self) -> None:
        self.tokens = self.prefix_tokens = self.outcomes = 0
        self.states: list[tuple[int, int, float]] = []  # videos in slots, in the queue, share of the cache

    @property
    def active(self) -> int:
        return self.states[-1][0] if self.states else 0

    @property
    def queued(self) -> int:
        return self.states[-1][1] if self.states else 0

    def prefilled(self, tokens: int, seconds: float) -> None:
        self.prefix_tokens += tokens

    def decoded(self, videos: int, tokens: int, seconds: float) -> None:
        self.tokens += tokens

    def finished(self, outcome: object) -> None:
        self.outcomes += 1

    def occupied(self, active: int, queued: int, cache_use: float) -> None:
        self.states.append((active, queued, cache_use))


@contextmanager
def running(
    net: AutoregressiveTransformer = BASE, observer: EngineObserver | None = None, **settings: object
) -> Iterator[Engine]:
    values = {"text_rows": TEXT_ROWS, **settings}
    engine = Engine(net, EngineSettings(**values), observer)  # type: ignore[arg-type]
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
    text = generator.standard_normal((TEXT_ROWS, 24)).astype(np.float32) if video2world else None
    values = {"id": f"r{seed}", "parameters": SamplingParameters(seed, 1.0, 0.8), **options}
    return GenerationRequest(context_tokens=context, text_embeddings=text, **values)  # type: ignore[arg-type]


def submit(engine: Engine, wanted: GenerationRequest) -> Outcome:
    outcome = Outcome()
    engine.submit(wanted, outcome)
    return outcome


def alone(wanted: GenerationRequest, net: AutoregressiveTransformer = BASE) -> np.ndarray:
    with running(net, max_videos=1) as engine:
        return submit(engine, wanted).video().tokens


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition to hold; `what` names it in the failure."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in {seconds:g} s it did not come true that {what}"
        time.sleep(0.001)
