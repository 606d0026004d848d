import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cosmos_export import commands, graphs
from cosmos_export.job import ExportJob
from cosmos_export.steps import export_onnx
from cosmos_triton.cli import main, parser
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.runtimes.onnx import OnnxRuntime

SMALL = VideoGeometry(33, 32, 48)


@pytest.fixture
def job(checkpoint: Path, tmp_path: Path) -> ExportJob:
    return ExportJob(checkpoint, output_folder=tmp_path / "onnx", video=SMALL, threads=1)


def test_a_graph_is_exported_compared_and_kept(job: ExportJob) -> None:
    first = export_onnx("video_encoder", job)
    assert first.agreement is not None
    assert first.holds
    assert first.agreement.error == 0
    model = onnx.load(first.path)
    onnx.checker.check_model(model)
    assert [(i.version, i.domain) for i in model.opset_import] == [(20, "")]
    assert not [node for node in model.graph.node if node.op_type == "ConvTranspose"]
    tokens = OnnxRuntime(first.path, 1)({"frames": np.zeros((3, 9, 32, 48), np.float32)})["tokens"]
    assert tokens.shape == (2, 2, 3)

    assert export_onnx("video_encoder", job).agreement is None
    assert not list(job.output_folder.glob(".*"))


def test_a_changed_checkpoint_is_exported_again(job: ExportJob, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(job.checkpoint_dir, folder)
    changing = ExportJob(folder, output_folder=job.output_folder, video=job.video, threads=1)
    export_onnx("text_encoder", changing)
    assert export_onnx("text_encoder", changing).agreement is None
    (weights,) = folder.rglob("pytorch_model.bin")
    content = torch.load(weights)
    content["encoder.final_layer_norm.weight"] += 1
    torch.save(content, weights)
    assert export_onnx("text_encoder", changing).agreement is not None


def test_a_damaged_graph_is_exported_again(job: ExportJob) -> None:
    path = export_onnx("text_encoder", job).path
    path.write_bytes(path.read_bytes()[:1000])
    assert export_onnx("text_encoder", job).agreement is not None


def test_a_graph_that_disagrees_is_removed(job: ExportJob, monkeypatch: pytest.MonkeyPatch) -> None:
    original = graphs.PyTorchRuntime.__call__
    monkeypatch.setattr(
        graphs.PyTorchRuntime,
        "__call__",
        lambda self, inputs: {name: 2 * value for name, value in original(self, inputs).items()},
    )
    exported = export_onnx("text_encoder", job)
    assert not exported.holds
    assert not exported.path.exists()


def test_weights_beyond_the_limit_lie_beside_the_graph(
    job: ExportJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosmos_export import onnx_graph

    monkeypatch.setattr(onnx_graph, "_EMBEDDED_LIMIT", 1 << 20)
    exported = export_onnx("text_encoder", job)
    assert exported.holds
    assert (
        exported.path.stat().st_size
        < 1 << 20
        < exported.path.with_name("text_encoder.onnx.data").stat().st_size
    )


def test_the_command_line(job: ExportJob, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--checkpoint-dir", str(job.checkpoint_dir), "--onnx-only"]
    arguments += ["--output-folder", str(job.output_folder)]
    arguments += ["--network", "text_encoder", "--video", "33x32x48"]
    assert main(arguments) == 0
    assert "[1/1] text_encoder" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "unchanged" in capsys.readouterr().out


def test_a_folder_without_the_network_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError):
        export_onnx("text_encoder", ExportJob(tmp_path, output_folder=tmp_path, video=SMALL))
    arguments = ["export", "--checkpoint-dir", str(tmp_path), "--onnx-only", "--network", "text_encoder"]
    assert main([*arguments, "--video", "33x32x48"]) == 1
    message = capsys.readouterr().err
    assert "holds no text encoder" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("video", ["33x640", "32x640x1024", "33x641x1024"])
def test_a_size_that_no_model_makes_is_wrong_usage(video: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--checkpoint-dir", str(tmp_path), "--onnx-only", "--video", video])


@pytest.mark.parametrize("target", [[], ["--onnx-only", "--model-repository", "r"]])
def test_one_target_is_named(target: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--checkpoint-dir", str(tmp_path), *target])
    assert "one of --onnx-only and --model-repository is required" in capsys.readouterr().err


def test_flags_of_earlier_versions_are_understood_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = ["--checkpoint", "c", "--repository", "r", "--output", "o"]
    options = parser().parse_args(["export", *earlier])
    assert [options.checkpoint_dir, options.model_repository, options.output_folder] == [
        Path("c"),
        Path("r"),
        Path("o"),
    ]
    options = parser().parse_args(["export", "verify", *earlier])
    assert [options.checkpoint_dir, options.model_repository] == [Path("c"), Path("r")]
    with pytest.raises(SystemExit, match="0"):
        main(["export", "--help"])
    assert not set(earlier) & set(capsys.readouterr().out.split())


def test_help_imports_neither_torch_nor_onnx() -> None:
    script = "import sys, cosmos_triton.cli as c; c.parser(); assert not {'torch', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_ensemble_stands_for_its_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(commands, "export_all", lambda networks, *_: asked.append(networks) or ())
    line = ["export", "--checkpoint-dir", str(tmp_path), "--onnx-only", "--ensemble", "cosmos_base_fast"]
    assert main(line) == 0
    assert asked == [["video_decoder", "video_encoder"]]
    with pytest.raises(SystemExit, match="2"):
        main([*line, "--network", "text_encoder"])
