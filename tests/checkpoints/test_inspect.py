"""`inspect` and the command line around it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cosmos_triton import cli
from cosmos_triton.checkpoints.files import read_tensors
from cosmos_triton.checkpoints.inspect import inspect_folder
from cosmos_triton.checkpoints.releases import COSMOS1, PREDICT1

Copy = Callable[..., Path]
Captured = pytest.CaptureFixture[str]

BASE = "Cosmos-Predict1-tiny"


def reasons(path: Path) -> dict[str, str]:
    return {report.ensemble: report.reason for report in inspect_folder(path).ensembles}


def test_a_whole_folder_serves_everything(tiny: Path, capsys: Captured) -> None:
    assert cli.main(["inspect", str(tiny)]) == 0
    table = capsys.readouterr().out
    assert "tiny-video2world" in table
    assert "8,290,752" in table
    assert table.count("can be served") == 4
    assert "damaged" not in table


def test_json_has_every_figure(tiny: Path, capsys: Captured) -> None:
    assert cli.main(["inspect", str(tiny), "--json", "--verify"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["servable"] == [
        "cosmos_base",
        "cosmos_base_fast",
        "cosmos_video2world",
        "cosmos_video2world_fast",
    ]
    first = report["components"][0]
    assert (first["architecture"], first["tensors"], first["parameters"]) == ("tiny", 25, 8_290_752)
    assert first["dtypes"] == ["bfloat16"]
    assert first["bytes"] == (tiny / BASE / "model.pt").stat().st_size
    assert all(component["problem"] == "" for component in report["components"])


def test_an_empty_folder_serves_nothing(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["inspect", str(tmp_path)]) == 1
    assert "cosmos-triton download --models 4B" in capsys.readouterr().out


def test_a_missing_folder_is_one_sentence(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["inspect", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err == f"cosmos-triton: checkpoint folder {tmp_path / 'x'} does not exist\n"


def test_each_model_says_what_it_lacks(copied: Copy) -> None:
    folder = copied()
    shutil.rmtree(folder / "google-t5")
    (folder / PREDICT1.diffusion_decoder / "aux_vars.pt").unlink()
    found = reasons(folder)
    assert found["cosmos_base_fast"] == ""
    assert "aux_vars.pt is missing" in found["cosmos_base"]
    assert "holds no text encoder" in found["cosmos_video2world"]
    assert "holds no text encoder" in found["cosmos_video2world_fast"]


def test_a_damaged_model_is_reported_and_the_other_still_served(copied: Copy, capsys: Captured) -> None:
    folder = copied()
    path = folder / BASE / "model.pt"
    tensors = {name: t.clone() for name, t in read_tensors(path).items() if "layers.1" not in name}
    torch.save(tensors, path)
    assert cli.main(["inspect", str(folder)]) == 0
    table = capsys.readouterr().out
    assert "problem: 11 missing: layers.1.attention.wq.weight" in table
    assert "cosmos_base_fast (tiny): " in table
    assert "cosmos_video2world (tiny-video2world): can be served" in table


def test_a_cut_file_is_named(copied: Copy, capsys: Captured) -> None:
    folder = copied(BASE)
    path = folder / BASE / "model.pt"
    path.write_bytes(path.read_bytes()[:1_000_000])
    assert cli.main(["inspect", str(folder)]) == 1
    assert f"problem: {path} is damaged: its 1000000 bytes end early" in capsys.readouterr().out


def test_numbers_that_cannot_be_weights_are_found_on_request(copied: Copy) -> None:
    folder = copied(BASE)
    path = folder / BASE / "model.pt"
    tensors = {name: tensor.clone() for name, tensor in read_tensors(path).items()}
    tensors["model.norm.weight"][3] = torch.nan
    tensors["model.layers.0.attention.wq.weight"].zero_()
    torch.save(tensors, path)
    (unread,) = inspect_folder(folder).components
    assert unread.problem == ""
    (verified,) = inspect_folder(folder, verify=True).components
    assert verified.problem == "1 not finite: norm.weight; 1 all zero: layers.0.attention.wq.weight"


def test_a_text_encoder_of_another_width(copied: Copy) -> None:
    folder = copied()
    path = folder / "google-t5/t5-11b/pytorch_model.bin"
    tensors = {
        name: tensor.repeat(1, 2) if tensor.dim() > 1 else tensor
        for name, tensor in read_tensors(path).items()
    }
    torch.save(tensors, path)
    assert "wrongly shaped" in reasons(folder)["cosmos_video2world"]


def test_releases_are_not_mixed(copied: Copy) -> None:
    folder = copied()
    shutil.copytree(folder / BASE, folder / "Cosmos-1.0-Autoregressive-4B")
    shutil.copytree(folder / PREDICT1.discrete_tokenizer, folder / COSMOS1.discrete_tokenizer)
    by_directory = {Path(r.directory).name: r.reason for r in inspect_folder(folder).ensembles}
    assert by_directory[BASE] == ""
    assert "keep releases in folders of their own" in by_directory["Cosmos-1.0-Autoregressive-4B"]


def test_the_guardrail_is_found(copied: Copy) -> None:
    folder = copied(BASE)
    assert inspect_folder(folder).guardrail == ""
    for name in ("blocklist", "video_content_safety_filter"):
        (folder / "Cosmos-Guardrail1" / name).mkdir(parents=True)
    assert inspect_folder(folder).guardrail == str(folder / "Cosmos-Guardrail1")


def test_init_random_from_the_command_line(tmp_path: Path, capsys: Captured) -> None:
    options = ["--checkpoint-dir", str(tmp_path / "new"), "--only", "diffusion-decoder"]
    assert cli.main(["init-random", *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'new'}\n"
    assert "writing" in captured.err
    assert [path.name for path in (tmp_path / "new").iterdir()] == [PREDICT1.diffusion_decoder]


@pytest.mark.parametrize(
    "arguments", [[], ["inspect"], ["download"], ["init-random", "--size", "3B"], ["nothing"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
