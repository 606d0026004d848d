import json
from pathlib import Path

import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.serving.settings import StageSettings


def triton_arguments(kind: str = "CPU", **parameters: str) -> dict[str, str]:
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    return {
        "model_name": "ar_sampler",
        "model_config": json.dumps(config),
        "model_instance_kind": kind,
        "model_instance_device_id": "1",
    }


def test_reads_placement_parameters_and_the_checkpoint_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSMOS_CHECKPOINT_DIR", "/models/cosmos")
    settings = StageSettings.from_triton(triton_arguments("GPU", max_videos="4", offload="TRUE"))
    assert settings.device == "cuda:1"
    assert settings.checkpoint_dir == Path("/models/cosmos")
    assert settings.integer("max_videos", 8) == 4
    assert settings.integer("max_queue", 32) == 32
    assert settings.flag("offload", default=False)
    assert StageSettings.from_triton(triton_arguments()).device == "cpu"


def test_the_environment_overrides_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSMOS_AR_SAMPLER_MAX_VIDEOS", "2")
    assert StageSettings.from_triton(triton_arguments(max_videos="4")).integer("max_videos", 8) == 2


def test_a_wrong_value_is_named() -> None:
    settings = StageSettings.from_triton(triton_arguments(max_videos="many", offload="maybe"))
    with pytest.raises(ConfigurationError, match="max_videos='many' is not an integer"):
        settings.integer("max_videos", 8)
    with pytest.raises(ConfigurationError, match="offload='maybe' is neither true nor false"):
        settings.flag("offload", default=False)
