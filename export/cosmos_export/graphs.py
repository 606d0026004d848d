"""A network as an ONNX file that agrees with PyTorch."""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cosmos_export.parity import Agreement, compare
from cosmos_export.source import Source
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import Network, Precision
from cosmos_triton.runtimes import DTYPES, OnnxRuntime, PyTorchRuntime

OPSET = 20  # every TensorRT reads it, and attention cannot fail there for want of a kernel

# A float32 copy and ONNX Runtime's own come on top of the graph: networks beyond this are compared
# on the GPU, by `cosmos-triton export verify`.
_COMPARED_BYTES = 3 << 30
_COMPARED_PIXELS = 1 << 21
_COMPARED_VIDEO = VideoGeometry(33, 64, 96)


def write_graph(
    source: Source, precision: Precision, path: Path, fingerprint: str, threads: int
) -> tuple[Agreement | None, str]:
    """Write a graph; under its name it appears only if it agrees with PyTorch.

    Args:
        source: the network.
        precision: of weights and activations.
        path: of the graph.
        fingerprint: that it carries.
        threads: of the comparison; 0 takes one per core.

    Returns:
        How far it is from PyTorch, None if it was not compared, and what there is to say besides.
    """
    from cosmos_export import onnx_graph  # seconds of imports, needed only for what did change

    if not os.access(_existing(path.parent), os.W_OK):
        raise ConfigurationError(
            f"{path.parent} cannot be written to: give another folder with --output-folder"
        )
    if threads:
        torch.set_num_threads(threads)
    module = source.load(DTYPES[precision])
    path.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.stem}.partial.onnx")

    def write(video: VideoGeometry) -> Mapping[str, Tensor]:
        inputs = replace(source, video=video).example_inputs()
        model = onnx_graph.build(module, inputs, source.network.output.name, OPSET)
        onnx_graph.save(model, unfinished, f"{path.name}.data", fingerprint)
        return inputs

    weights = sum(tensor.numel() * 4 for tensor in module.parameters())
    agreement, note = None, f"{weights / 2**30:.0f} GiB in float32: compare it on the GPU with verify"
    try:
        if weights <= _COMPARED_BYTES:
            small = _small(source.video)
            agreement, note = _compare(source.network, module, unfinished, write(small), threads), ""
            if small != source.video:
                note = f"compared at {small.frames}x{small.height}x{small.width}"
        if agreement is None or (agreement.holds and note):
            write(source.video)
        if agreement is None or agreement.holds:
            unfinished.rename(path)
        return agreement, note
    finally:
        unfinished.unlink(missing_ok=True)


def _small(video: VideoGeometry) -> VideoGeometry:
    """The size that a CPU compares in seconds: at the published one a decoder takes minutes."""
    pixels = video.frames * video.height * video.width
    return video if pixels <= _COMPARED_PIXELS else _COMPARED_VIDEO


def _compare(
    network: Network, module: nn.Module, path: Path, inputs: Mapping[str, Tensor], threads: int
) -> Agreement:
    """ONNX Runtime against PyTorch, both computing in float32 with the weights as exported."""
    from cosmos_export.onnx_graph import load_in_float32

    arrays, output = {name: tensor.numpy() for name, tensor in inputs.items()}, network.output.name
    half = next(module.parameters()).dtype != torch.float32
    actual = OnnxRuntime(load_in_float32(path) if half else path, threads)(arrays)[output]
    widened = deepcopy(module).float() if half else module
    expected = PyTorchRuntime(widened, tuple(inputs), output)(arrays)[output]
    return compare(actual, expected, network.tolerance)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
