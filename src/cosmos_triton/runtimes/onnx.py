"""ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from cosmos_triton.errors import CheckpointError


class OnnxRuntime:
    """One exported graph.

    Args:
        graph: the .onnx file, with weights it keeps outside beside it, or a whole graph in memory.
        threads: threads of one call; 0 takes one per core.

    Raises:
        CheckpointError: the file is no graph that ONNX Runtime can load.
    """

    def __init__(self, graph: Path | bytes, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library's exceptions have no common base of their own
            name = "the graph" if isinstance(graph, bytes) else graph
            raise CheckpointError(f"ONNX Runtime cannot load {name}: {error}") from error
        self.shapes: dict[str, tuple[int, ...]] = {
            tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()
        }  # of the inputs; a graph's sizes are fixed
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays by input name -> arrays by output name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
