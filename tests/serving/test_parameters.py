"""One dataclass a stage, held against every pbtxt of every profile, the engine and the documentation."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.serving.parameters import (
    PARAMETERS,
    PROFILE_VALUES,
    TRITON_PARAMETERS,
    DiffusionDecoderParameters,
    GuardrailParameters,
    NetworkParameters,
    SamplerParameters,
    StageParameters,
    ignored_variables,
    read_parameters,
    variable,
)

KINDS = sorted({*PARAMETERS.values()} - {StageParameters}, key=lambda kind: kind.__name__)


def written(repository: Path, stage: str, profile: str) -> dict[str, str]:
    folder = repository / "model_repository" / stage
    variant = folder / "configs" / f"{profile}.pbtxt"
    path = variant if variant.is_file() else folder / "config.pbtxt"
    parameters = text_format.Parse(path.read_text(), ModelConfig()).parameters
    return {key: value.string_value for key, value in parameters.items() if key not in TRITON_PARAMETERS}


@pytest.mark.parametrize("profile", sorted(PROFILE_VALUES))
@pytest.mark.parametrize("stage", sorted(PARAMETERS))
def test_a_pbtxt_sets_what_its_profile_lists_and_no_more(repository: Path, stage: str, profile: str) -> None:
    found = written(repository, stage, profile)
    assert found == PROFILE_VALUES[profile].get(stage, {})
    read_parameters(stage, found, {})  # every value is one that the stage takes


def test_every_stage_of_the_repository_is_listed(repository: Path) -> None:
    folders = (repository / "model_repository").iterdir()
    stages = {folder.name for folder in folders if (folder / "1" / "model.py").is_file()}
    assert stages == set(PARAMETERS)


def test_the_engine_has_the_same_defaults() -> None:
    sampler, engine = SamplerParameters(), EngineSettings()
    for name in ("max_videos", "max_queue", "window"):
        assert getattr(sampler, name) == getattr(engine, name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_documentation_has_every_parameter_with_its_default_and_meaning(repository: Path, kind) -> None:
    text = (repository / "docs" / "configuration.md").read_text()
    stages = [stage for stage in PARAMETERS if PARAMETERS[stage] is kind]
    for field in dataclasses.fields(kind):
        rows = [line for line in text.splitlines() if f"| `{field.name}` |" in line]
        (row,) = [row for row in rows if all(f"`{stage}`" in row for stage in stages)]
        _, _, default, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        assert default == (f"`{field.default}`" if field.default != "" else "")
        assert meaning == field.metadata["meaning"]


def test_the_documentation_has_no_other_parameter(repository: Path) -> None:
    text = (repository / "docs" / "configuration.md").read_text()
    table = text.split("## Per stage")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(dataclasses.fields(kind)) for kind in KINDS)


def test_reading_them_needs_no_torch() -> None:
    code = "import sys, cosmos_triton.serving.parameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_environment_comes_before_the_pbtxt_and_the_pbtxt_before_the_default() -> None:
    environment = {variable("ar_sampler", "max_queue"): "5"}
    read = read_parameters("ar_sampler", {"max_queue": "7", "window": "4"}, environment)
    assert read == SamplerParameters(max_queue=5, window=4)


def test_flags_are_true_or_false() -> None:
    assert read_parameters("video_guardrail", {"offload": "TRUE"}, {}) == GuardrailParameters(offload=True)
    with pytest.raises(
        ConfigurationError, match="video_guardrail: offload='maybe' is neither true nor false"
    ):
        read_parameters("video_guardrail", {"offload": "maybe"}, {})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (NetworkParameters, {"runtime": "jax"}, "runtime='jax' is none of tensorrt, onnx, torch"),
        (NetworkParameters, {"threads": -1}, "threads=-1 is negative"),
        (SamplerParameters, {"residency": "lazy"}, "residency='lazy' is none of resident, offload"),
        (GuardrailParameters, {"posture": "lax"}, "posture='lax' is none of full, built-in, disabled"),
        (
            DiffusionDecoderParameters,
            {"denoiser": "x"},
            "denoiser='x' is none of diffusion_denoiser, in-process",
        ),
    ],
)
def test_a_value_out_of_range_is_named(kind, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("name", "value", "profile", "reason"),
    [
        (
            "COSMOS_AR_SAMPLER_MAX_VIDEO",
            "4",
            "cpu",
            "ar_sampler has base_model, video2world_model, max_videos",
        ),
        ("COSMOS_MEDIA_ENCODER_SPEED", "4", "cpu", "media_encoder has no parameters"),
        ("COSMOS_SAMPLER_WINDOW", "1", "cpu", r"no stage reads it \(there is COSMOS_AR_SAMPLER_WINDOW\)"),
        ("COSMOS_VIDEO_ENCODER_RUNTIME", "torch", "default", "Triton runs a TensorRT plan there"),
        (
            "COSMOS_VIDEO_ENCODER_THREADS",
            "2",
            "torch",
            "threads takes effect where runtime is onnx, and it is torch",
        ),
        ("COSMOS_TEXT_ENCODER_RESIDENCY", "offload", "cpu", "where runtime is torch, and it is onnx"),
        (
            "COSMOS_DIFFUSION_DECODER_PRESET",
            "reduced",
            "default",
            "where denoiser is in-process, and it is diffusion",
        ),
    ],
)
def test_a_variable_without_effect_is_said_and_why(name: str, value: str, profile: str, reason: str) -> None:
    reasons = ignored_variables({name: value, "PATH": "/bin"}, profile)
    assert list(reasons) == [name]
    assert re.match(f"{name} is ignored: .*{reason}", reasons[name]), reasons[name]


@pytest.mark.parametrize("profile", sorted(PROFILE_VALUES))
def test_what_has_effect_or_is_not_ours_is_not_said(profile: str) -> None:
    environment = {
        "COSMOS_AR_SAMPLER_MAX_VIDEOS": "4",
        "COSMOS_PROMPT_GUARDRAIL_POSTURE": "disabled",
        "COSMOS_CHECKPOINT_DIR": "/checkpoints",
        "COSMOS_RESIDENCY": "offload",
        "COSMOS_TRITON_SERVICE_HOST": "10.0.0.1",  # Kubernetes makes such for a service of that name
    }
    assert ignored_variables(environment, profile) == {}


def test_one_variable_may_give_another_its_effect() -> None:
    environment = {
        "COSMOS_DIFFUSION_DECODER_PRESET": "reduced",
        "COSMOS_DIFFUSION_DECODER_DENOISER": "in-process",
    }
    assert ignored_variables(environment, "default") == {}
