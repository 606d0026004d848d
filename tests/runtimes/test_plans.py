import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.host import Gpu
from cosmos_triton.runtimes.plans import (
    FileRecord,
    Host,
    PlanRecord,
    check_plans,
    find_problem,
    plan_path,
    record_path,
)

HOST = Host("11.1.0", (Gpu("NVIDIA L40S", "8.9", "580.95.05"),))
NETWORK = "text_encoder"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "t5").mkdir(parents=True)
    (folder / "t5" / "model.bin").write_bytes(b"weights")
    return folder


@pytest.fixture
def plan(tmp_path: Path, checkpoint: Path) -> Path:
    plan = plan_path(tmp_path / "repository", NETWORK)
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"plan")
    weights = checkpoint / "t5" / "model.bin"
    PlanRecord(
        network=NETWORK,
        library="tensorrt",
        library_version="11.1.0.106",
        compute_capabilities=("8.9",),
        gpu="NVIDIA L40S",
        driver="580.95.05",
        precision="bfloat16",
        shapes={"input_ids": (512,), "attention_mask": (512,), "text_embeddings": (512, 1024)},
        fingerprint="f",
        checkpoint=(FileRecord.of(weights, "t5/model.bin"),),
        plan=FileRecord.of(plan, plan.name),
        activation_bytes=None,
        seconds=1.0,
        built="2026-01-01T00:00:00+00:00",
    ).write(record_path(plan))
    return plan


def change(plan: Path, **fields: object) -> None:
    record = PlanRecord.read(record_path(plan))
    replace(record, **fields).write(record_path(plan))  # type: ignore[arg-type]


def test_a_plan_that_fits_has_no_problem(plan: Path, checkpoint: Path) -> None:
    assert find_problem(plan, checkpoint, HOST) is None
    assert find_problem(plan, checkpoint, HOST, VideoGeometry(33, 640, 1024)) is None


def test_records_survive_the_round_trip(plan: Path) -> None:
    record = PlanRecord.read(record_path(plan))
    record.write(record_path(plan))
    assert PlanRecord.read(record_path(plan)) == record


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            replace(HOST, tensorrt_version="10.13.3"),
            "was built by TensorRT 11.1.0.106, but 10.13.3 is installed",
        ),
        (replace(HOST, tensorrt_version=None), "no libnvinfer is installed here"),
        (replace(HOST, gpus=()), "needs a GPU of compute capability 8.9, but none is visible"),
        (
            replace(HOST, gpus=(*HOST.gpus, Gpu("NVIDIA H100", "9.0", "580"))),
            "was built for compute capability 8.9, but NVIDIA H100 has 9.0",
        ),
    ],
)
def test_another_machine_is_refused(plan: Path, checkpoint: Path, host: Host, message: str) -> None:
    assert message in (find_problem(plan, checkpoint, host) or "")


def test_a_plan_of_another_library_is_refused(plan: Path, checkpoint: Path) -> None:
    change(plan, library="tensorrt_rtx")
    assert "tensorrt_rtx, which Triton cannot load" in (find_problem(plan, checkpoint, HOST) or "")


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        ("video_encoder", {"frames": (3, 9, 640, 1024), "tokens": (2, 40, 64)}),
        ("video_decoder", {"tokens": (5, 40, 64), "frames": (33, 640, 1024, 3)}),
        ("latent_decoder", {"latents": (16, 5, 80, 128), "frames": (33, 640, 1024, 3)}),
        (
            "diffusion_denoiser",
            {
                "latents": (16, 8, 80, 128),
                "timestep": (1,),
                "tokens": (8, 40, 64),
                "text_embeddings": (512, 1024),
                "predictions": (2, 16, 8, 80, 128),
            },
        ),
    ],
)
def test_another_size_of_video_is_refused(
    plan: Path, checkpoint: Path, network: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    change(plan, network=network, shapes=shapes)
    assert find_problem(plan, checkpoint, HOST, VideoGeometry(33, 640, 1024)) is None
    problem = find_problem(plan, checkpoint, HOST, VideoGeometry(33, 160, 256))
    assert "which are not those of 33x160x256 videos" in (problem or "")


@pytest.mark.parametrize("content", [b"plaN", b"pla", b""])
def test_a_changed_plan_is_refused(plan: Path, checkpoint: Path, content: bytes) -> None:
    plan.write_bytes(content)
    assert "is not the file its record describes" in (find_problem(plan, checkpoint, HOST) or "")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "network": "x"}', "null"]
)
def test_a_damaged_record_is_refused(plan: Path, checkpoint: Path, text: str) -> None:
    record_path(plan).write_text(text)
    assert "is no plan record" in (find_problem(plan, checkpoint, HOST) or "")


def test_missing_files_are_named(plan: Path, checkpoint: Path) -> None:
    record_path(plan).unlink()
    assert "model.plan.json is missing" in (find_problem(plan, checkpoint, HOST) or "")
    plan.unlink()
    assert "model.plan is missing" in (find_problem(plan, checkpoint, HOST) or "")


def test_another_checkpoint_is_refused(plan: Path, checkpoint: Path) -> None:
    weights = checkpoint / "t5" / "model.bin"
    os.utime(weights, ns=(1, 1))
    assert find_problem(plan, checkpoint, HOST) is None  # touched, or copied from elsewhere: same content
    weights.write_bytes(b"Weights")
    assert "was built from another t5/model.bin" in (find_problem(plan, checkpoint, HOST) or "")
    weights.unlink()
    assert find_problem(plan, checkpoint, HOST) is None  # no longer needed


def test_every_plan_that_does_not_fit_is_named_with_one_command(plan: Path, checkpoint: Path) -> None:
    repository = plan.parents[2]
    check_plans(repository, checkpoint, [NETWORK], HOST)
    with pytest.raises(ConfigurationError) as raised:
        check_plans(repository, checkpoint, [NETWORK, "video_decoder", "latent_decoder"], HOST)
    message = str(raised.value)
    assert message.count("is missing") == 2
    assert message.endswith(
        f"run `cosmos-triton export --checkpoint-dir {checkpoint} --model-repository {repository} "
        "--network video_decoder latent_decoder`"
    )


def test_records_are_plain_json(plan: Path) -> None:
    fields = json.loads(record_path(plan).read_text())
    assert fields["compute_capabilities"] == ["8.9"]
    assert fields["checkpoint"][0]["path"] == "t5/model.bin"
