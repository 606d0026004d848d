"""What the README says to type is typed here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_triton import cli
from cosmos_triton.server.launch import Server

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
LINES = [
    line.split("#")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()
]
CLIENT = [line for line in LINES if line.startswith(".venv/bin/cosmos-client")]


@pytest.fixture
def workspace(clip: bytes, tmp_path: Path) -> Path:
    """A folder with the files that the README's commands name."""
    (tmp_path / "clip.mp4").write_bytes(clip)
    (tmp_path / "clips.jsonl").write_text(json.dumps({"visual_input": "clip.mp4"}) + "\n")
    return tmp_path


def test_make_verbs_exist(repository: Path) -> None:
    verbs = {line.split()[1] for line in LINES if line.startswith("make ")}
    verbs |= set(re.findall(r"`make ([a-z]+)", README))
    assert verbs
    defined = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    assert verbs <= defined


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(".venv/bin/cosmos-triton ")])
def test_operator_commands_parse(line: str) -> None:
    assert callable(cli.parser().parse_args(shlex.split(line)[1:]).run)


@pytest.mark.triton
@pytest.mark.parametrize("line", CLIENT)
def test_client_commands(server: Server, workspace: Path, line: str) -> None:
    _, *words = shlex.split(line)
    done = subprocess.run(
        [sys.executable, "-m", "cosmos_client", *words, "--url", server.grpc_url],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.triton
def test_python_example(server: Server, workspace: Path) -> None:
    (example,) = (block for kind, block in BLOCKS if kind == "python")
    code = example.replace("localhost:8001", server.grpc_url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "(5, 10, 16)" in done.stdout
    assert (workspace / "world.mp4").is_file()
