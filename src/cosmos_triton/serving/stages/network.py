"""The five networks that are stages of their own, where no TensorRT engine runs them.

Parameter `runtime`: `onnx` (profile cpu) or `torch` (profile torch).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult

if TYPE_CHECKING:
    from cosmos_triton.serving.metrics import Metrics

Network = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NetworkStage:
    """One network behind its stage's tensors."""

    def __init__(self, settings: StageSettings, metrics: "Metrics") -> None:
        runtime = settings.text("runtime", "onnx")
        if runtime not in ("onnx", "torch"):
            raise ConfigurationError(f"{settings.model}: runtime={runtime!r} is neither onnx nor torch")
        self._run = _onnx(settings) if runtime == "onnx" else _pytorch(settings)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """The network's inputs by name → its outputs by name; tensors on the GPU stay there."""
        return StageResult(self._run(inputs))

    def close(self) -> None:
        """Nothing to release."""


def _onnx(settings: StageSettings) -> Network:
    """The graph `onnx/<model>.onnx` of the checkpoint folder. Parameter `threads`: 0 takes one per core."""
    from cosmos_triton.runtimes.onnx import OnnxRuntime

    graph: Path = settings.checkpoint_dir / "onnx" / f"{settings.model}.onnx"
    if not graph.is_file():
        raise ConfigurationError(
            f"{graph} is missing: run "
            f"`cosmos-triton export --checkpoint-dir {settings.checkpoint_dir} --onnx-only`"
        )
    return OnnxRuntime(graph, threads=settings.integer("threads", 0))


def _pytorch(settings: StageSettings) -> Network:
    from cosmos_triton.serving.stages.network_torch import load_network

    return load_network(settings)
