from pathlib import Path

import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.server.launch import Installation, ServerSettings, command, environment


def settings(repository: Path, **changes: object) -> ServerSettings:
    values = {"model_repository": repository / "model_repository", "checkpoint_dir": repository, **changes}
    return ServerSettings(**values)


def test_command_loads_the_stages_of_the_chosen_ensembles_only(repository: Path) -> None:
    chosen = settings(repository, profile="cpu", ensembles=("cosmos_base_fast",), extra=("--log-verbose=1",))
    line = command(chosen, Installation(Path("/t/tritonserver"), "", None, None), Path("/b"))
    loaded = {argument.split("=")[1] for argument in line if argument.startswith("--load-model=")}
    assert loaded == {
        "media_decoder",
        "video_encoder",
        "ar_sampler",
        "video_decoder",
        "video_guardrail",
        "media_encoder",
        "cosmos_base_fast",
    }
    assert "--model-config-name=cpu" in line
    assert line[-1] == "--log-verbose=1"


def test_the_default_profile_is_the_plain_config(repository: Path) -> None:
    line = command(settings(repository), Installation(Path("/t"), "", None, None), Path("/b"))
    assert not any(argument.startswith("--model-config-name") for argument in line)


def test_stages_run_this_interpreter_and_find_the_checkpoints(repository: Path) -> None:
    variables = environment(settings(repository), Installation(Path("/t"), "/lib/a", None, None))
    assert variables["COSMOS_CHECKPOINT_DIR"] == str(repository)
    assert variables["LD_LIBRARY_PATH"] == "/lib/a"
    assert (Path(variables["PATH"].split(":")[0]) / "python3").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "gpu"}, "profile 'gpu' is none of"),
        ({"ensembles": ("cosmos",)}, "ensemble 'cosmos' is none of"),
        ({"checkpoint_dir": Path("/nowhere")}, "/nowhere does not exist"),
        ({"model_repository": Path("/nowhere")}, "/nowhere is not the model repository"),
    ],
)
def test_wrong_settings_are_named(repository: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings(repository, **changes)
