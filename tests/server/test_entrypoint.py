"""The container's entrypoint, outside the container, as far as that goes."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cosmos_triton.demo.random_weights import init_random
from cosmos_triton.errors import ConfigurationError


@pytest.fixture(scope="module")
def entrypoint(repository: Path) -> ModuleType:
    path = repository / "deploy" / "docker" / "entrypoint.py"
    spec = importlib.util.spec_from_file_location("container_entrypoint", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("container") / "checkpoints"
    init_random("tiny", folder, seed=0)
    return folder


@pytest.fixture
def variables(checkpoint: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "COSMOS_CHECKPOINT_DIR": str(checkpoint),
        "COSMOS_STATE_DIR": str(tmp_path / "state"),
        "COSMOS_SHM_GIB": "0.001",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("COSMOS_PROFILE", "gpu"), ("COSMOS_BUILD_PLANS", "always"), ("COSMOS_SHM_GIB", "lots")],
)
def test_a_setting_that_cannot_work_is_named(entrypoint: ModuleType, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}='{value}'"):
        entrypoint.Settings.from_environment({name: value})


def test_missing_checkpoints_and_small_shared_memory_are_refused(
    entrypoint: ModuleType, variables: dict[str, str], tmp_path: Path
) -> None:
    settings = entrypoint.Settings.from_environment(
        variables | {"COSMOS_CHECKPOINT_DIR": "/nowhere", "COSMOS_SHM_GIB": "1e9"}
    )
    with pytest.raises(ConfigurationError, match="/nowhere is not there: mount"):
        entrypoint.check_folders(settings)
    with pytest.raises(ConfigurationError, match="--shm-size"):
        entrypoint.check_shared_memory(settings, tmp_path)


def test_plans_stay_when_the_repository_is_laid_anew(
    entrypoint: ModuleType, repository: Path, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    entrypoint.copy_repository(repository / "model_repository", served)
    plan = served / "video_encoder" / "1" / "model.plan"
    plan.write_bytes(b"plan")
    (served / "video_encoder" / "config.pbtxt").write_text("stale")
    entrypoint.copy_repository(repository / "model_repository", served)
    assert plan.read_bytes() == b"plan"
    assert "video_encoder" in (served / "video_encoder" / "config.pbtxt").read_text()


def test_all_networks_of_the_servable_ensembles_are_needed(entrypoint: ModuleType, checkpoint: Path) -> None:
    assert len(entrypoint.needed_networks(checkpoint)) == 5


def test_without_plans_it_refuses_or_tries_to_build(
    entrypoint: ModuleType, variables: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    refusing = entrypoint.Settings.from_environment(variables | {"COSMOS_BUILD_PLANS": "never"})
    with pytest.raises(
        ConfigurationError, match=r"video_encoder/1/model\.plan is missing.*cosmos-triton export"
    ):
        entrypoint.prepare_networks(refusing)
    building = entrypoint.Settings.from_environment(variables)
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(ConfigurationError, match=r"exporting .* failed"):
            entrypoint.prepare_networks(building)
        assert "tensorrt is not installed" in capfd.readouterr().err


def test_it_becomes_a_server_on_the_cpu(
    entrypoint: ModuleType,
    variables: dict[str, str],
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it but the last step: real settings, repository and export; the server is not started."""
    for name, value in (variables | {"COSMOS_PROFILE": "cpu"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(entrypoint, "IMAGE_REPOSITORY", repository / "model_repository")
    monkeypatch.setattr(entrypoint, "needed_networks", lambda checkpoint: ["text_encoder"])
    lines: list[list[str]] = []
    monkeypatch.setattr(entrypoint.os, "execvp", lambda file, line: lines.append(line))
    entrypoint.main(["--grpc-port=9001", "--", "--log-verbose=1"])
    ((program, *arguments),) = lines
    assert program == "cosmos-triton"
    assert Path(variables["COSMOS_CHECKPOINT_DIR"], "onnx", "text_encoder.onnx").is_file()
    assert Path(variables["COSMOS_STATE_DIR"], "model_repository", "cosmos_base", "config.pbtxt").is_file()
    assert arguments[-1] == "--log-verbose=1"
    assert arguments.index("--grpc-port=9001") < arguments.index("--")


def test_the_serve_command_is_one_that_cosmos_triton_takes(
    entrypoint: ModuleType, variables: dict[str, str], repository: Path
) -> None:
    from cosmos_triton.cli import parser

    settings = entrypoint.Settings.from_environment(variables)
    _, *arguments = entrypoint.serve_command(settings, ["--grpc-port=9001", "--", "--log-verbose=1"])
    options = parser().parse_args(arguments)
    assert (options.grpc_port, options.host, options.exit_timeout_s) == (9001, "0.0.0.0", 600)
    assert options.extra[-1] == "--log-verbose=1"


def test_a_refusal_is_one_line_and_exit_code_1(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(repository / "deploy" / "docker" / "entrypoint.py")],
        env={"COSMOS_CHECKPOINT_DIR": "/nowhere", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "cosmos-triton: /nowhere is not there: mount the checkpoints, -v DIR:/checkpoints\n"


def test_what_the_dockerfile_copies_exists_and_is_not_ignored(repository: Path) -> None:
    text = (repository / "Dockerfile.triton").read_text()
    kept = {
        line.removeprefix("!")
        for line in (repository / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = [source for line in re.findall(r"^COPY (.+)$", text, re.M) for source in line.split()[:-1]]
    assert sources
    for source in sources:
        assert (repository / source).exists()
        assert source in kept or str(Path(source).parent) in kept


def test_the_pinned_tensorrt_is_one_whose_api_is_checked(repository: Path) -> None:
    (pin,) = re.findall(r"^ARG TENSORRT=(.+)$", (repository / "Dockerfile.triton").read_text(), re.M)
    assert (repository / "tests" / "data" / "tensorrt" / f"{pin}.json").is_file()


def test_hadolint_has_nothing_to_say(repository: Path) -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{Path('/usr/bin')}")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(repository / "Dockerfile.triton")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
