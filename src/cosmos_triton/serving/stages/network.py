"""The five networks that are stages of their own, where no TensorRT engine runs them.

Parameter `runtime`: `onnx` (profile cpu) or `torch` (profile torch).
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.networks.stage_modules import STAGE_MODULES
from cosmos_triton.runtimes.onnx import OnnxRuntime
from cosmos_triton.runtimes.pytorch import PyTorchRuntime
from cosmos_triton.serving import catalog
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult

if TYPE_CHECKING:
    from cosmos_triton.serving.metrics import Metrics

_log = logging.getLogger(__name__)


class NetworkStage:
    """One network behind its stage's tensors."""

    def __init__(self, settings: StageSettings, metrics: "Metrics") -> None:
        runtime = settings.text("runtime", "onnx")
        if runtime not in ("onnx", "torch"):
            raise ConfigurationError(f"{settings.model}: runtime={runtime!r} is neither onnx nor torch")
        self._run = _onnx(settings).__call__ if runtime == "onnx" else _pytorch(settings).run

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """The network's inputs by name → its outputs by name; tensors on the GPU stay there."""
        return StageResult(self._run(inputs))

    def close(self) -> None:
        """Nothing to release."""


def _onnx(settings: StageSettings) -> OnnxRuntime:
    """The graph `onnx/<model>.onnx` of the checkpoint folder. Parameter `threads`: 0 takes one per core."""
    graph: Path = settings.checkpoint_dir / "onnx" / f"{settings.model}.onnx"
    if not graph.is_file():
        raise ConfigurationError(
            f"{graph} is missing: run python -m export --checkpoint {settings.checkpoint_dir} --onnx-only"
        )
    return OnnxRuntime(graph, threads=settings.integer("threads", 0))


def _pytorch(settings: StageSettings) -> PyTorchRuntime:
    """The module with the checkpoint's weights, bfloat16 on a GPU; has run once when it is returned."""
    if settings.device != "cpu":
        torch.cuda.set_device(settings.device)
    folder = CheckpointFolder(settings.checkpoint_dir)
    stage = STAGE_MODULES[settings.model]
    module = stage.load(folder, torch.float32 if settings.device == "cpu" else torch.bfloat16)
    runtime = PyTorchRuntime(
        module, stage.inputs, stage.output, settings.device, residency(settings), stage.blocks(module)
    )
    geometry = catalog.geometry(catalog.autoregressive_models(folder))
    began = time.monotonic()
    runtime.run(dict(zip(stage.inputs, stage.example(folder, geometry), strict=True)))
    _log.info("warmed up in %.1f s", time.monotonic() - began)
    return runtime
