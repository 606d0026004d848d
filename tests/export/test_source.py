from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from cosmos_export.__main__ import NETWORKS
from cosmos_export.graphs import GRAPHS, ExportGraph, GraphTensor, folder_geometry, geometry_letters
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry

TRITON_TYPES = {torch.float32: "TYPE_FP32", torch.int32: "TYPE_INT32", torch.uint8: "TYPE_UINT8"}


def declared(tensor: GraphTensor) -> tuple[str, str, list[int]]:
    dims = [axis if isinstance(axis, int) else -1 for axis in tensor.axes]
    return tensor.name, TRITON_TYPES[tensor.dtype], dims


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_a_graph_has_the_tensors_of_its_config(graph: ExportGraph, repository: Path) -> None:
    text = (repository / "model_repository" / graph.name / "config.pbtxt").read_text()
    config = text_format.Parse(text, ModelConfig())
    for ours, theirs in (((graph.inputs), config.input), ((graph.output,), config.output)):
        assert [tensor.name for tensor in ours] == [tensor.name for tensor in theirs]
        for tensor, promised in zip(ours, theirs, strict=True):
            _, triton_type, dims = declared(tensor)
            assert triton_type == DataType.Name(promised.data_type)
            # Triton's dims may fix what the graph calls a letter (512 text tokens, 33 frames).
            assert len(dims) == len(promised.dims)
            assert all(b in (a, -1) or a == -1 for a, b in zip(dims, promised.dims, strict=True))


def test_the_command_line_knows_every_graph() -> None:
    assert sorted(NETWORKS) == sorted(GRAPHS)


def test_sizes_of_the_published_video() -> None:
    letters = geometry_letters(VideoGeometry(33, 640, 1024))
    assert letters == {"F": 33, "T": 5, "H": 640, "W": 1024, "h": 40, "w": 64, "y": 80, "x": 128}


def test_modules_return_what_the_graph_says(checkpoint: Path) -> None:
    folder = CheckpointFolder(checkpoint)
    for graph in GRAPHS.values():
        sizes = graph.sizes(folder, VideoGeometry(33, 32, 48))
        module = graph.load(folder, torch.float32)
        with torch.inference_mode():
            output = module(*graph.example_inputs(sizes).values())
        assert tuple(output.shape) == graph.output.shape(sizes)
        assert output.dtype == graph.output.dtype


def test_the_size_of_video_comes_from_the_folder(checkpoint: Path, tmp_path: Path) -> None:
    assert folder_geometry(CheckpointFolder(checkpoint)) == VideoGeometry(33, 160, 256)
    with pytest.raises(CheckpointError, match="no autoregressive model"):
        folder_geometry(CheckpointFolder(tmp_path))
