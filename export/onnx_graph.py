"""PyTorch module → ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx_ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from export.fingerprint import PROPERTY

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
    """Inline functions, fold what is constant, drop what is unused or there twice."""
    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=False)
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


def save(model: onnx_ir.Model, path: Path, data: str, fingerprint: str) -> None:
    """Write the graph.

    Args:
        model: with its weights.
        path: of the graph.
        data: name of the file beside it that takes the weights if they exceed 1 GiB.
        fingerprint: kept in the file; `export.fingerprint.graph_fingerprint` returns it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    model.metadata_props[PROPERTY] = fingerprint
    weights = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    path.with_name(data).unlink(missing_ok=True)
    onnx_ir.save(model, path, external_data=data if weights > _EMBEDDED_LIMIT else None)


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
