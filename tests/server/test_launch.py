import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.server.installation import Installation
from cosmos_triton.server.launch import Server, ServerSettings, command, environment

NOWHERE = Installation(Path("/t/tritonserver"), "/lib/a", None, None)


def settings(repository: Path, **changes: object) -> ServerSettings:
    values = {"model_repository": repository / "model_repository", "checkpoint_dir": repository, **changes}
    return ServerSettings(**values)


def test_command_loads_the_stages_of_the_chosen_ensembles_only(repository: Path, tmp_path: Path) -> None:
    chosen = settings(repository, profile="cpu", ensembles=("cosmos_base_fast",), extra=("--log-verbose=1",))
    line = command(chosen, NOWHERE, tmp_path)
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


def test_the_default_profile_is_the_plain_config(repository: Path, tmp_path: Path) -> None:
    line = command(settings(repository), NOWHERE, tmp_path)
    assert not any(argument.startswith("--model-config-name") for argument in line)
    assert any(argument.startswith("--pinned-memory-pool") for argument in line)


def test_stages_run_this_interpreter_and_find_the_checkpoints(repository: Path, tmp_path: Path) -> None:
    variables = environment(settings(repository), NOWHERE, tmp_path)
    assert variables["COSMOS_CHECKPOINT_DIR"] == str(repository)
    assert variables["LD_LIBRARY_PATH"] == "/lib/a"
    assert (Path(variables["PATH"].split(":")[0]) / "python3").exists()


def test_checkpoints_below_a_folder_with_a_space_are_named_by_a_link(
    repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my checkpoints"
    folder.mkdir()
    told = environment(settings(repository, checkpoint_dir=folder), NOWHERE, tmp_path / "work")
    assert " " not in told["COSMOS_CHECKPOINT_DIR"]
    assert Path(told["COSMOS_CHECKPOINT_DIR"]).samefile(folder)


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


def test_free_ports_are_three_and_the_rest_can_be_set(repository: Path) -> None:
    chosen = ServerSettings.on_free_ports(
        model_repository=repository / "model_repository", checkpoint_dir=repository, exit_timeout_s=3
    )
    assert len({chosen.http_port, chosen.grpc_port, chosen.metrics_port, 8000, 8001, 8002}) == 6
    assert chosen.exit_timeout_s == 3


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "127.0.0.1:8001"),
        ("0.0.0.0", "127.0.0.1:8001"),
        ("::", "[::1]:8001"),
        ("example.org", "example.org:8001"),
    ],
)
def test_a_server_on_all_addresses_is_asked_on_loopback(repository: Path, host: str, url: str) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert Server(settings(repository, host=host), process).grpc_url == url


def test_a_server_without_a_log_that_ends_is_told_by_its_code(repository: Path) -> None:
    process = subprocess.Popen(["sh", "-c", "exit 3"])
    server = Server(ServerSettings.on_free_ports(**vars_of(repository)), process)
    with pytest.raises(ConfigurationError, match="tritonserver ended with code 3"):
        server.wait_until_ready(10)


def vars_of(repository: Path) -> dict[str, object]:
    return {"model_repository": repository / "model_repository", "checkpoint_dir": repository}


STAND_IN = """\
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from cosmos_triton.server import launch
from cosmos_triton.server.installation import Installation

launch.find_installation = lambda: Installation(Path({binary!r}), "", None, None)
launch.Server.ready = lambda self: True
settings = launch.ServerSettings(Path({repository!r}), Path("/tmp"), "cpu")
with launch.started(settings) as server:
    print("ready: stand-in", file=sys.stderr, flush=True)
    server.process.wait()
"""


def test_a_server_does_not_outlive_a_killed_parent(repository: Path, tmp_path: Path) -> None:
    binary, pid_file = tmp_path / "tritonserver", tmp_path / "pid"
    binary.write_text(f"#!/bin/bash\necho $$ > {pid_file}\nexec sleep 60\n")
    binary.chmod(0o755)
    program = STAND_IN.format(
        path=sys.path, binary=str(binary), repository=str(repository / "model_repository")
    )
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("ready: ")
    deadline = time.monotonic() + 10
    while not pid_file.exists() or not pid_file.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.kill()
    running.wait()
    running.stderr.close()
    pid = int(pid_file.read_text())
    while _lives(pid):
        assert time.monotonic() < deadline, "tritonserver is still there"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
