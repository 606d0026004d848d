"""A stand-in for `triton_python_backend_utils`, which exists inside Triton's Python stub alone.

It is as strict as the real one where that matters: a second answer, a failing metric call and a tensor on the
GPU that is read by numpy all raise.
"""

import sys
import types
from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import pytest

backend = types.ModuleType("triton_python_backend_utils")
sys.modules["triton_python_backend_utils"] = backend


class Tensor:
    def __init__(self, name: str, array: np.ndarray, on_gpu: bool = False) -> None:
        self.name, self._array, self._on_gpu = lambda: name, array, on_gpu

    def is_cpu(self) -> bool:
        return not self._on_gpu

    def as_numpy(self) -> np.ndarray:
        if self._on_gpu:
            raise RuntimeError("Tensor is stored in GPU and cannot be converted to NumPy.")
        return self._array


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self.message, self.code = lambda: message, lambda: code


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        self.output_tensors, self.error = lambda: output_tensors, lambda: error
        self.has_error = lambda: error is not None

    def arrays(self) -> dict[str, np.ndarray]:
        assert not self.has_error(), self.error().message()
        return {tensor.name(): tensor.as_numpy() for tensor in self.output_tensors()}


class PreferredMemory:
    def __init__(self, kind: int, device: int) -> None:
        self.kind, self.device = kind, device


class InferenceRequest:
    """A call from one model to another; `models` answer it."""

    models: ClassVar[dict[str, Callable[["InferenceRequest"], InferenceResponse]]] = {}

    def __init__(self, **arguments: Any) -> None:
        self.__dict__.update({"preferred_memory": None, **arguments})

    def exec(self) -> InferenceResponse:
        return self.models[self.model_name](self)


class Sender:
    """Takes one answer."""

    def __init__(self) -> None:
        self.answers: list[InferenceResponse] = []

    def send(self, answer: InferenceResponse, flags: int) -> None:
        assert not self.answers, "a second answer raises and hangs the client"
        assert flags == backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self.answers.append(answer)


class Request:
    """What Triton hands to `execute`."""

    def __init__(self, request_id: str = "", timeout_us: int = 0, **arrays: np.ndarray) -> None:
        self.sender = Sender()
        self.request_id, self.timeout = lambda: request_id, lambda: timeout_us
        self.inputs = lambda: [Tensor(name, array) for name, array in arrays.items()]
        self.get_response_sender = lambda: self.sender


class Series:
    def __init__(self, kind: "MetricFamily.Kind") -> None:
        self.kind, self.values = kind, []

    def _take(self, kind: "MetricFamily.Kind", value: float) -> None:
        assert kind == self.kind, "the wrong kind of call ends the server"
        assert np.isfinite(value), "a value that is not finite ends the server"
        self.values.append(value)

    def increment(self, value: float) -> None:
        assert value >= 0, "a negative increment ends the server"
        self._take(MetricFamily.Kind.COUNTER, value)

    def set(self, value: float) -> None:
        self._take(MetricFamily.Kind.GAUGE, value)

    def observe(self, value: float) -> None:
        self._take(MetricFamily.Kind.HISTOGRAM, value)


class MetricFamily:
    Kind = IntEnum("Kind", "COUNTER GAUGE HISTOGRAM")
    COUNTER, GAUGE, HISTOGRAM = Kind
    series: ClassVar[dict[tuple[str, tuple[tuple[str, str], ...]], Series]] = {}

    def __init__(self, name: str, description: str, kind: Kind) -> None:
        self._name, self._kind = name, kind

    def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> Series:
        assert (buckets is not None) == (self._kind == self.HISTOGRAM)
        for label in labels.values():
            label.encode()  # a label that is no text ends the server
        key = (self._name, tuple(sorted(labels.items())))
        return self.series.setdefault(key, Series(self._kind))


class Logger:
    lines: ClassVar[list[tuple[str, str]]] = []


for level in ("error", "warn", "info", "verbose"):
    setattr(
        Logger, f"log_{level}", staticmethod(lambda text, level=level: Logger.lines.append((level, text)))
    )

for part in (
    Tensor,
    TritonError,
    InferenceResponse,
    InferenceRequest,
    PreferredMemory,
    MetricFamily,
    Logger,
):
    setattr(backend, part.__name__, part)
backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
backend.TRITONSERVER_MEMORY_CPU, backend.TRITONSERVER_MEMORY_GPU = 0, 2
backend.get_output_tensor_by_name = lambda response, name: next(
    tensor for tensor in response.output_tensors() if tensor.name() == name
)


@pytest.fixture(autouse=True)
def _fresh_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """No calls, metrics or log lines of another test."""
    monkeypatch.setattr(InferenceRequest, "models", {})
    monkeypatch.setattr(MetricFamily, "series", {})
    monkeypatch.setattr(Logger, "lines", [])


@pytest.fixture
def request_of() -> type[Request]:
    """Makes a request: `request_of("its-id", prompt=array)`."""
    return Request


@pytest.fixture
def metric_values() -> Callable[..., list[float]]:
    """What was passed to one series: `metric_values("name", label="value")`."""

    def find(name: str, **labels: str) -> list[float]:
        series = MetricFamily.series.get((name, tuple(sorted(labels.items()))))
        return [] if series is None else series.values

    return find
