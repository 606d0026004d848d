from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from cosmos_triton.errors import CheckpointError
from cosmos_triton.runtimes.onnx import OnnxRuntime
from cosmos_triton.runtimes.pytorch import PyTorchRuntime


class Subtract(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left - right


def graph(path: Path) -> Path:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("left", "right", "out")
    ]
    body = helper.make_graph(
        [helper.make_node("Sub", ["left", "right"], ["out"])], "g", values[:2], values[2:]
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


INPUTS = {"right": np.float32([1, 2]), "left": np.float32([5, 5])}


def test_both_runtimes_take_inputs_by_name(tmp_path: Path) -> None:
    for runtime in (
        OnnxRuntime(graph(tmp_path / "subtract.onnx"), threads=1),
        PyTorchRuntime(Subtract(), ("left", "right"), "out"),
    ):
        outputs = runtime(INPUTS)
        assert list(outputs) == ["out"]
        assert outputs["out"].tolist() == [4, 3]


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"cannot load .*broken\.onnx"):
        OnnxRuntime(path)
