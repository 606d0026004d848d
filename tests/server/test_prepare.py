"""`cosmos-triton prepare` and `up`, outside the container, as far as that goes."""

import argparse
import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.cli import parser
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.host import Gpu
from cosmos_triton.runtimes.plans import Host
from cosmos_triton.server import commands, prepare
from cosmos_triton.server.launch import ServerSettings, free_ports
from cosmos_triton.server.supervisor import SupervisorSettings

TINY = VideoGeometry(33, 160, 256)
H100 = Gpu("NVIDIA H100", "9.0", "580")


@pytest.fixture
def options(tiny: Path, repository: Path, tmp_path: Path) -> Callable[..., argparse.Namespace]:
    """The parsed command line of `cosmos-triton VERB ...`, on free ports."""

    def parse(verb: str, *words: str) -> argparse.Namespace:
        ports = dict(zip(("--http-port", "--grpc-port", "--metrics-port"), free_ports(3), strict=True))
        line = [verb, f"--checkpoint-dir={tiny}", *(f"{flag}={port}" for flag, port in ports.items())]
        if verb != "serve":
            line.append(f"--state-dir={tmp_path / 'state'}")
        return parser().parse_args([*line, *words])

    return parse


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the exporter was asked for; every graph appears, empty."""
    asked: list[list[str]] = []

    def export(settings: ServerSettings, target: list[str], networks: list[str]) -> None:
        asked.append([*target, *networks])
        for network in networks:
            path = settings.checkpoint_dir / "onnx" / f"{network}.onnx"
            path.parent.mkdir(exist_ok=True)
            path.touch()

    monkeypatch.setattr(prepare, "_export", export)
    return asked


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings that a server would have been started with."""
    started: list[ServerSettings] = []

    def supervise(settings: ServerSettings, _: SupervisorSettings) -> int:
        started.append(settings)
        return 0

    monkeypatch.setattr(commands, "supervise", supervise)
    return started


def test_up_builds_the_graphs_that_are_missing_then_serves(
    options: Callable[..., argparse.Namespace],
    copied: Callable[..., Path],
    exported: list[list[str]],
    served: list[ServerSettings],
) -> None:
    folder = copied()
    arguments = options("up", f"--checkpoint-dir={folder}", "--profile=cpu", "--", "--log-verbose=1")
    assert commands.up(arguments) == 0
    ((only, *networks),) = exported
    assert only == "--onnx-only"
    assert len(networks) == 5
    (settings,) = served
    assert len(settings.ensembles) == 4
    assert settings.extra[-1] == "--log-verbose=1"
    assert any("shm-default-byte-size" in argument for argument in settings.extra)


def test_check_builds_nothing(options: Callable[..., argparse.Namespace], exported: list[list[str]]) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing that can be served: .*lacks .*\.onnx: run"):
        commands.prepare_only(options("prepare", "--profile=cpu", "--check"))
    assert exported == []


def test_the_checkpoint_folder_is_looked_at_once(
    options: Callable[..., argparse.Namespace],
    copied: Callable[..., Path],
    exported: list[list[str]],
    served: list[ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[Path] = []
    original = CheckpointFolder.__init__

    def counted(self: CheckpointFolder, path: Path) -> None:
        looked.append(path)
        original(self, path)

    monkeypatch.setattr(CheckpointFolder, "__init__", counted)
    folder = copied()
    commands.up(options("up", f"--checkpoint-dir={folder}", "--profile=cpu", "--model=tiny"))
    commands.serve(options("serve", f"--checkpoint-dir={folder}", "--profile=cpu", "--model=tiny"))
    assert looked == [folder, folder]
    assert [settings.base_model for settings in served] == ["tiny", "tiny"]


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, tensorrt: str | None) -> None:
    monkeypatch.setattr(commands, "visible_gpus", lambda: (H100,))
    monkeypatch.setattr(Host, "detect", lambda: Host(tensorrt, (H100,)))
    for stage in ("PROMPT", "VIDEO"):
        monkeypatch.setenv(f"COSMOS_{stage}_GUARDRAIL_POSTURE", "built-in")


def test_plans_are_built_in_a_folder_of_the_gpu_and_the_tensorrt(
    options: Callable[..., argparse.Namespace],
    exported: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_gpu(monkeypatch, "11.1.0")
    place = tmp_path / "state" / "9.0-11.1.0" / "model_repository"
    plan = place / "video_encoder" / "1" / "model.plan"
    plan.parent.mkdir(parents=True)
    plan.write_text("an earlier one")
    with pytest.raises(ConfigurationError, match=r"video_encoder.*is missing"):  # nothing was really built
        commands.up(options("up"))
    ((flag, folder, *networks),) = exported
    assert (flag, folder) == ("--model-repository", str(place))
    assert len(networks) == 5
    assert (place / "cosmos_base" / "config.pbtxt").is_file()
    assert plan.read_text() == "an earlier one"


def test_missing_plans_are_refused_where_none_may_be_built(
    options: Callable[..., argparse.Namespace], exported: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, "11.1.0")
    for line in (["up", "--build=never"], ["prepare", "--check"], ["serve"]):
        arguments = options(*line)
        with pytest.raises(ConfigurationError, match=r"model\.plan is missing.*cosmos-triton export"):
            arguments.run(arguments)
    assert exported == []


def test_without_tensorrt_plans_are_no_use(
    options: Callable[..., argparse.Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, None)
    with pytest.raises(ConfigurationError, match="no libnvinfer is installed here"):
        commands.up(options("up"))


def test_a_disk_without_room_is_refused_before_the_build(
    options: Callable[..., argparse.Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, "11.1.0")
    monkeypatch.setattr(prepare, "_PLAN_BYTES", 1 << 50)
    with pytest.raises(ConfigurationError, match=r"building plans of .* takes about .* GB free"):
        commands.up(options("up"))


def test_a_second_builder_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock, done = tmp_path / "lock", threading.Event()

    def second() -> None:
        with prepare.locked(lock):
            done.set()

    with lock.open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.2)
    thread.join(10)
    assert done.is_set()
    assert "another server builds plans there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"COSMOS_CHECKPOINT_DIR": "/nowhere"}, "the checkpoint folder /nowhere does not exist"),
        ({"COSMOS_CHECKPOINT_DIR": "/tmp", "COSMOS_PROFILE": "gpu"}, "profile 'gpu' is none of"),
        ({"COSMOS_CHECKPOINT_DIR": "/tmp", "COSMOS_BUILD_PLANS": "always"}, "'always' is none of"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(
    variables: dict[str, str], told: str, repository: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosmos_triton", "up"],
        env={
            "PATH": "/usr/bin:/bin",
            "COSMOS_MODEL_REPOSITORY": f"{repository}/model_repository",
            **variables,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("cosmos-triton: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_environment_stands_for_flags(repository: Path) -> None:
    given = argparse.ArgumentParser()
    variables = {
        "COSMOS_CHECKPOINT_DIR": "/checkpoints",
        "COSMOS_MODEL_REPOSITORY": "/repository",
        "COSMOS_PROFILE": "torch",
        "COSMOS_HOST": "0.0.0.0",
        "COSMOS_STATE_DIR": "/state",
        "COSMOS_BUILD_PLANS": "never",
    }
    commands._add_server(given, variables)
    commands._add_state(given, variables)
    options = given.parse_args([])
    assert (str(options.checkpoint_dir), str(options.model_repository)) == ("/checkpoints", "/repository")
    assert (options.profile, options.host, options.build) == ("torch", "0.0.0.0", "never")
    assert str(options.state_dir) == "/state"
    assert given.parse_args(["--profile=cpu"]).profile == "cpu"
