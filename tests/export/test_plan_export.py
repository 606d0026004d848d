"""Every network through the real ONNX parser and builder of TensorRT for RTX, without a GPU."""

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from cosmos_export import onnx_graph
from cosmos_export.graphs import OPSET
from cosmos_export.job import ExportJob
from cosmos_export.plan_builder import BuildError, build_plan
from cosmos_export.steps import export_plan
from cosmos_export.tensorrt_library import TENSORRT, TENSORRT_RTX, TensorRTLibrary, load_library
from cosmos_triton.architectures import (
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
)
from cosmos_triton.cli import main
from cosmos_triton.diffusion.transformer import DiffusionDenoiser, DiffusionTransformer
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.networks.continuous_tokenizer import ContinuousDecoder, LatentDecoder, LatentStatistics
from cosmos_triton.networks.discrete_tokenizer import (
    DiscreteDecoder,
    DiscreteEncoder,
    VideoDecoder,
    VideoEncoder,
)
from cosmos_triton.networks.text_encoder import TextEncoder
from cosmos_triton.pipeline import NETWORKS, video_sizes
from cosmos_triton.runtimes.examples import example_inputs
from cosmos_triton.runtimes.plans import PlanRecord, plan_path, record_path

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")

CAPABILITIES = ("8.0", "8.9", "12.0")
SMALL = VideoGeometry(33, 32, 48)


@pytest.fixture(scope="module")
def library() -> TensorRTLibrary:
    return load_library(TENSORRT_RTX)


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny checkpoint: graphs of plans are written beside the weights."""
    return Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("plans") / "checkpoint"))


@pytest.fixture(scope="module")
def job(folder: Path) -> ExportJob:
    return ExportJob(
        folder, folder.parent / "repository", video=SMALL, library=TENSORRT_RTX, capabilities=CAPABILITIES
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_compiles_and_is_recorded(network: str, job: ExportJob) -> None:
    exported = export_plan(network, job)
    assert exported.agreement is not None
    assert exported.holds
    record = PlanRecord.read(record_path(exported.path))
    assert record.compute_capabilities == CAPABILITIES
    assert record.precision == NETWORKS[network].precision
    assert record.plan.holds(exported.path)
    assert record.activation_bytes
    assert record.checkpoint
    assert not list(exported.path.parent.glob(".*"))

    assert export_plan(network, job).kept


def test_other_capabilities_are_another_plan(job: ExportJob) -> None:
    export_plan("text_encoder", job)
    assert not export_plan("text_encoder", replace(job, capabilities=("8.9",))).kept


def test_a_damaged_plan_is_built_again(job: ExportJob) -> None:
    plan = export_plan("text_encoder", job).path
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    rebuilt = export_plan("text_encoder", job)
    assert not rebuilt.kept
    assert rebuilt.note == "graph unchanged"


def test_weights_of_the_right_type_stay_in_the_checkpoint(
    folder: Path, job: ExportJob, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "checkpoint"))
    (weights,) = copy.rglob("pytorch_model.bin")
    torch.save({name: tensor.bfloat16() for name, tensor in torch.load(weights).items()}, weights)
    exported = export_plan(
        "text_encoder", replace(job, checkpoint_dir=copy, model_repository=tmp_path / "repository")
    )
    assert exported.holds  # ONNX Runtime read the weights through the graph
    (graph,) = weights.parent.glob("*.onnx")
    large = [t for t in onnx.load(graph, load_external_data=False).graph.initializer if t.external_data]
    assert {entry.value for t in large for entry in t.external_data if entry.key == "location"} == {
        weights.name
    }
    assert any("embed_tokens" in tensor.name for tensor in large)


@torch.no_grad()
def realistic(network: str) -> tuple[nn.Module, dict[str, int]]:
    """A network of a realistic width with random weights, and its sizes."""
    sizes = video_sizes(VideoGeometry(33, 64, 96))
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # half the memory and time of float32 weights cast afterwards
    try:
        if network == "video_encoder":
            module: nn.Module = VideoEncoder(DiscreteEncoder(DISCRETE_TOKENIZERS["DV8x16x16"]))
        elif network == "video_decoder":
            module = VideoDecoder(DiscreteDecoder(DISCRETE_TOKENIZERS["DV8x16x16"]))
        elif network == "latent_decoder":
            statistics = LatentStatistics(torch.zeros(256), torch.ones(256), 16)
            module = LatentDecoder(ContinuousDecoder(CONTINUOUS_TOKENIZERS["CV8x8x8"]), statistics)
        elif network == "text_encoder":
            architecture = replace(TEXT_ENCODERS["t5-11b"], layers=5, heads=32, ffn_dim=24576)
            module = TextEncoder(architecture)
        else:
            decoder = replace(DIFFUSION_DECODERS["7B"], dim=2048, heads=16, layers=5)
            module = DiffusionDenoiser(DiffusionTransformer(decoder))
    finally:
        torch.set_default_dtype(torch.float32)
    return module.eval(), sizes | {"C": 1024, "V": 8, "Z": 16}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_compiles_at_a_realistic_width(
    network: str, library: TensorRTLibrary, tmp_path: Path
) -> None:
    module, sizes = realistic(network)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert parameters >= (300e6 if network in ("text_encoder", "diffusion_denoiser") else 40e6)
    inputs = example_inputs(NETWORKS[network], sizes)
    model = onnx_graph.build(module, inputs, NETWORKS[network].output.name, OPSET)
    onnx_graph.save(model, tmp_path / "graph.onnx", "graph.onnx.data", "")
    del model, module
    built = build_plan(library, tmp_path / "graph.onnx", tmp_path / "plan", CAPABILITIES)
    assert built.size == (tmp_path / "plan").stat().st_size > parameters


def test_a_graph_the_parser_rejects_fails_with_its_message(library: TensorRTLibrary, tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    body = helper.make_graph([node], "g", values[:1], values[1:])
    graph = tmp_path / "unsupported.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), graph)
    with pytest.raises(BuildError, match=r"rejects unsupported\.onnx: .*DynamicQuantizeLinear"):
        build_plan(library, graph, tmp_path / "plan", CAPABILITIES)


def test_a_capability_that_cannot_be_built_for_is_named(library: TensorRTLibrary) -> None:
    with pytest.raises(ConfigurationError, match=r"compute capability 9\.9; it knows SM"):
        library.create_config(library.trt.Builder(library.trt.Logger()), ("9.9",), None)


def test_tensorrt_itself_takes_no_capability(library: TensorRTLibrary) -> None:
    builder = library.trt.Builder(library.trt.Logger())
    with pytest.raises(ConfigurationError, match="builds for the GPU at hand"):
        replace(library, name=TENSORRT).create_config(builder, ("8.9",), 4.0)


def test_a_missing_library_is_one_line(
    job: ExportJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.import_module", _no_module)
    folders = ["--checkpoint-dir", str(job.checkpoint_dir), "--model-repository", str(job.model_repository)]
    arguments = ["export", *folders]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "tensorrt is not installed" in message
    assert len(message.splitlines()) == 1


def _no_module(name: str) -> None:
    raise ImportError(name)


def test_the_command_line_builds_a_plan(job: ExportJob, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--checkpoint-dir", str(job.checkpoint_dir)]
    arguments += ["--model-repository", str(job.model_repository)]
    arguments += ["--network", "text_encoder", "--video", "33x32x48", "--library", TENSORRT_RTX]
    assert main([*arguments, "--compute-capability", "8.9", "--force"]) == 0
    assert "activations" in capsys.readouterr().out
    assert job.model_repository is not None
    record = PlanRecord.read(record_path(plan_path(job.model_repository, "text_encoder")))
    assert record.compute_capabilities == ("8.9",)
