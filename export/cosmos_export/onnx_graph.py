"""PyTorch module → ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxscript.optimizer
import torch
from onnx_ir import external_data
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from cosmos_export.fingerprint import PROPERTY
from cosmos_export.weights import SMALLEST_REFERENCE, held_values, refer_to_files

_HALVES = (onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16)
_EMBEDDED_LIMIT = 1 << 30  # bytes of weights beyond which they go into a file of their own


def build(module: nn.Module, inputs: Mapping[str, Tensor], output: str, opset: int) -> onnx_ir.Model:
    """The module as an ONNX graph with static shapes.

    Args:
        module: in evaluation mode, its positional arguments in the order of `inputs`.
        inputs: example values by tensor name; only types and shapes matter.
        output: name of the one result.
        opset: of the graph.
    """
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, tuple(inputs.values()), strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=[output],
            optimize=False,  # simplified below, without the rewriting rules that take most of the time
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned no program")
    simplify(exported.model)
    return exported.model


def simplify(model: onnx_ir.Model) -> None:
    """Inline functions, fold what is constant, drop what is unused or there twice.

    Nothing is folded into weights: a folded transpose of a large one would be a second copy of it.
    """
    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=False, should_fold=_may_fold)
    for clean in (
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        clean(model)


def _may_fold(node: onnx_ir.Node) -> bool | None:
    constants = (value.const_value for value in node.inputs if value is not None)
    large = any(tensor is not None and tensor.nbytes >= SMALLEST_REFERENCE for tensor in constants)
    return False if large else None


def save(model: onnx_ir.Model, path: Path, data: str, fingerprint: str) -> None:
    """Write the graph.

    Weights that are mapped from files of the same folder stay there.

    Args:
        model: with its weights.
        path: of the graph.
        data: name of the file beside it that takes the other weights if they exceed 1 GiB.
        fingerprint: kept in the file; `cosmos_export.fingerprint.graph_fingerprint` returns it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    model.metadata_props[PROPERTY] = fingerprint
    refer_to_files(model, path.parent)
    path.with_name(data).unlink(missing_ok=True)
    large = held_values(model, SMALLEST_REFERENCE)
    if sum(tensor.nbytes for tensor in large.values()) > _EMBEDDED_LIMIT:
        written = external_data.convert_tensors_to_external(list(large.values()), path.parent, data)
        for value, tensor in zip(large, written, strict=True):
            value.const_value = tensor
    onnx_ir.save(model, path)


def load_in_float32(path: Path) -> bytes:
    """A half-precision graph with the same weights, computing in float32.

    ONNX Runtime has no bfloat16 on a CPU. What is compared this way is everything but rounding:
    structure, constants, and the weights as they were rounded.
    """
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type in _HALVES:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in _HALVES:
                attribute.i = onnx.TensorProto.FLOAT
            if attribute.HasField("t") and attribute.t.data_type in _HALVES:
                wide = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(wide, attribute.t.name))
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks on torchvision (left out on purpose) and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
