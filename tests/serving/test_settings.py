import json
from pathlib import Path

import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.serving.logs import log_to_triton
from cosmos_triton.serving.parameters import SamplerParameters, StageParameters
from cosmos_triton.serving.settings import StageSettings


def triton_arguments(model: str = "ar_sampler", kind: str = "CPU", **parameters: str) -> dict[str, str]:
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    return {
        "model_name": model,
        "model_config": json.dumps(config),
        "model_instance_kind": kind,
        "model_instance_device_id": "1",
    }


def test_reads_placement_parameters_and_the_checkpoint_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSMOS_CHECKPOINT_DIR", "/models/cosmos")
    settings = StageSettings.from_triton(triton_arguments(kind="GPU", max_videos="4"))
    assert settings.device == "cuda:1"
    assert settings.checkpoint_dir == Path("/models/cosmos")
    assert settings.parameters == SamplerParameters(max_videos=4)
    assert StageSettings.from_triton(triton_arguments()).device == "cpu"


def test_the_environment_has_the_last_word_whether_the_pbtxt_names_it_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COSMOS_AR_SAMPLER_MAX_VIDEOS", "2")
    monkeypatch.setenv("COSMOS_AR_SAMPLER_WINDOW", "1")
    settings = StageSettings.from_triton(triton_arguments(max_videos="4"))
    assert settings.parameters == SamplerParameters(max_videos=2, window=1)


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSMOS_AR_SAMPLER_MAX_VIDEOS", "many")
    with pytest.raises(ConfigurationError, match="ar_sampler: max_videos='many' is not an integer"):
        StageSettings.from_triton(triton_arguments())


def test_a_stage_that_is_not_listed_has_no_parameters() -> None:
    assert StageSettings.from_triton(triton_arguments("my_stage")).parameters == StageParameters()
    with pytest.raises(ConfigurationError, match="my_stage: its pbtxt sets 'speed'"):
        StageSettings.from_triton(triton_arguments("my_stage", speed="9"))


def test_a_variable_without_effect_is_a_warning_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log_to_triton("diffusion_decoder")
    monkeypatch.setenv("COSMOS_DIFFUSION_DECODER_PRESET", "reduced")
    monkeypatch.setenv("COSMOS_AR_SAMPLER_NONSENSE", "1")  # another stage's to say
    StageSettings.from_triton(triton_arguments("diffusion_decoder"))
    assert pb_utils.Logger.lines == [
        (
            "warn",
            "diffusion_decoder: COSMOS_DIFFUSION_DECODER_PRESET is ignored: preset takes effect where "
            "denoiser is in-process, and it is diffusion_denoiser",
        )
    ]
