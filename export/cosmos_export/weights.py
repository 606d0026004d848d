"""Weights that stay in the checkpoint: a graph points into the file it was loaded from.

Networks load their tensors memory-mapped. Where the type is already right, what a parameter holds
is a region of a file, and an ONNX graph in that file's folder can name the region instead of
carrying a copy: a few megabytes of graph for 14 GB of weights. ONNX allows no path outside the
graph's own folder, so a graph written elsewhere takes a copy.
"""

from pathlib import Path

import onnx_ir
import torch
from torch import Tensor

from cosmos_triton.mapped import Region, regions

SMALLEST_REFERENCE = 1 << 16  # bytes; smaller tensors are kept in the graph, where they can be folded


def refer_to_files(model: onnx_ir.Model, folder: Path) -> int:
    """Let large initializers point into files of `folder` that they are mapped from.

    Returns:
        Bytes that need not be copied.
    """
    mappings = _mapped_files(folder)
    referred = 0
    for value in model.graph.initializers.values():
        tensor = _torch_tensor(value.const_value)
        if tensor is None or tensor.nbytes < SMALLEST_REFERENCE or not tensor.is_contiguous():
            continue
        mapping = _find(mappings, tensor.data_ptr(), tensor.nbytes)
        if mapping is not None and value.const_value is not None:
            value.const_value = onnx_ir.ExternalTensor(
                location=mapping.path.name,
                offset=mapping.offset + tensor.data_ptr() - mapping.start,
                length=tensor.nbytes,
                dtype=value.const_value.dtype,
                shape=onnx_ir.Shape(tensor.shape),
                name=value.name or "",
                base_dir=folder,
            )
            referred += tensor.nbytes
    return referred


def held_values(model: onnx_ir.Model, smallest: int) -> dict[onnx_ir.Value, onnx_ir.TensorProtocol]:
    """Initializers of at least `smallest` bytes that a file of this graph has to hold itself."""
    return {
        value: value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not isinstance(value.const_value, onnx_ir.ExternalTensor)
        and value.const_value.nbytes >= smallest
    }


def _torch_tensor(tensor: onnx_ir.TensorProtocol | None) -> Tensor | None:
    raw = getattr(tensor, "raw", None)
    return raw if isinstance(raw, torch.Tensor) and raw.device.type == "cpu" else None


def _mapped_files(folder: Path) -> list[Region]:
    """What this process maps from files that lie in `folder`."""
    resolved = folder.resolve()
    return [region for region in regions() if region.path.parent == resolved]


def _find(mappings: list[Region], address: int, size: int) -> Region | None:
    return next((m for m in mappings if m.start <= address and address + size <= m.stop), None)
