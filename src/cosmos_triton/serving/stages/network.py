"""The five networks that are stages of their own, where no TensorRT plan runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cosmos_triton.architectures import DISCRETE_TOKENIZERS, TEXT_ENCODERS
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.serving.checks import check_finite, check_range, check_shape
from cosmos_triton.serving.parameters import NetworkParameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult

# Of the largest preset, since a graph does not say which it is of; what a smaller one's embedding does not
# hold, ONNX Runtime refuses.
_VOCABULARIES = {
    "tokens": max(tokenizer.codebook_size for tokenizer in DISCRETE_TOKENIZERS.values()),
    "input_ids": max(encoder.vocabulary for encoder in TEXT_ENCODERS.values()),
    "attention_mask": 2,
}


@dataclass(frozen=True)
class RunningNetwork:
    """One network, ready to run.

    Args:
        run: its inputs by name → its outputs by name; numpy arrays, or PyTorch tensors wherever they are.
        shapes: of its inputs.
        vocabularies: for each input of integers the number of values it may have, from 0 up.
    """

    run: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    shapes: Mapping[str, tuple[int, ...]]
    vocabularies: Mapping[str, int]


class NetworkStage:
    """One network behind its stage's tensors; its parameters are `NetworkParameters`."""

    def __init__(self, settings: StageSettings[NetworkParameters]) -> None:
        match settings.parameters.runtime:
            case "onnx":
                self._network = _onnx(settings)
            case "torch":
                self._network = _pytorch(settings)
            case other:
                raise ConfigurationError(f"{settings.model}: runtime={other!r} runs in Triton, not in Python")

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """The network's inputs by name → its outputs by name; tensors on the GPU stay there."""
        for name, shape in self._network.shapes.items():
            check_shape(name, inputs[name], shape)
            if name in self._network.vocabularies:
                check_range(name, inputs[name], 0, self._network.vocabularies[name] - 1)
            else:
                check_finite(name, inputs[name])
        return StageResult(self._network.run(inputs))


def _onnx(settings: StageSettings[NetworkParameters]) -> RunningNetwork:
    """The graph `onnx/<model>.onnx` of the checkpoint folder."""
    from cosmos_triton.runtimes import OnnxRuntime

    graph: Path = settings.checkpoint_dir / "onnx" / f"{settings.model}.onnx"
    if not graph.is_file():
        raise ConfigurationError(
            f"{graph} is missing: run "
            f"`cosmos-triton export --checkpoint-dir {settings.checkpoint_dir} --onnx-only`"
        )
    runtime = OnnxRuntime(graph, threads=settings.parameters.threads)
    vocabularies = {name: _VOCABULARIES[name] for name in runtime.shapes if name in _VOCABULARIES}
    return RunningNetwork(runtime, runtime.shapes, vocabularies)


def _pytorch(settings: StageSettings[NetworkParameters]) -> RunningNetwork:
    from cosmos_triton.serving.stages.network_torch import load_network

    return load_network(settings)
