"""The five engine networks where no TensorRT engine runs them: profile `cpu`."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.runtimes.onnx import OnnxRuntime
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult


class NetworkStage:
    """One exported graph, run by ONNX Runtime.

    The graph is `onnx/<model>.onnx` in the checkpoint folder, as `python -m export --onnx-only` writes it.
    Parameter `threads`: threads of one forward pass; 0 takes one per core.
    """

    def __init__(self, settings: StageSettings, metrics: Metrics) -> None:
        runtime = settings.text("runtime", "onnx")
        if runtime != "onnx":
            raise ConfigurationError(f"{settings.model}: runtime={runtime!r} is not onnx")
        graph = settings.checkpoint_dir / "onnx" / f"{settings.model}.onnx"
        if not graph.is_file():
            raise ConfigurationError(
                f"{graph} is missing: run python -m export --checkpoint {settings.checkpoint_dir} --onnx-only"
            )
        self._network = OnnxRuntime(graph, threads=settings.integer("threads", 0))

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """The graph's inputs by name → its outputs by name."""
        return StageResult(self._network(inputs))

    def close(self) -> None:
        """Nothing to release."""
