"""The container's image, as far as its recipe can be read."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cosmos_triton.pipeline import PROFILES
from cosmos_triton.server.checks import parameter
from cosmos_triton.server.launch import ServerSettings

NEEDED = {"full": "guardrail", "built-in": "serve", "disabled": "serve"}  # extra by guardrail posture


@pytest.fixture(scope="module")
def recipe(repository: Path) -> str:
    return (repository / "Dockerfile.triton").read_text()


def test_the_image_has_the_extras_that_its_postures_need(
    recipe: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("PROMPT", "VIDEO"):
        monkeypatch.delenv(f"COSMOS_{stage}_GUARDRAIL_POSTURE", raising=False)
    (extras,) = re.findall(r'pip install "\.\[(.+?)\]"', recipe)
    defined = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(defined)
    for profile in PROFILES:
        settings = ServerSettings(repository / "model_repository", repository, profile)
        for stage in ("prompt_guardrail", "video_guardrail"):
            assert NEEDED[parameter(settings, stage, "posture")] in extras.split(",")


def test_one_opencv_is_left(recipe: str) -> None:
    install = recipe.index('pip install ".[serve')
    assert "uninstall --yes opencv-python \\" in recipe[install:]
    assert '--force-reinstall --no-deps "opencv-python-headless' in recipe[install:]


def test_what_the_dockerfile_copies_exists_and_is_not_ignored(recipe: str, repository: Path) -> None:
    kept = {
        line.removeprefix("!")
        for line in (repository / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = [source for line in re.findall(r"^COPY (.+)$", recipe, re.M) for source in line.split()[:-1]]
    assert sources
    for source in sources:
        assert (repository / source).exists()
        assert source in kept or str(Path(source).parent) in kept


def test_the_pinned_tensorrt_is_one_whose_api_is_checked(recipe: str, repository: Path) -> None:
    (pin,) = re.findall(r"^ARG TENSORRT=(.+)$", recipe, re.M)
    assert (repository / "tests" / "data" / "tensorrt" / f"{pin}.json").is_file()


def test_the_entrypoint_is_a_command_of_ours_behind_the_images_own(recipe: str) -> None:
    from cosmos_triton.cli import parser

    (words,) = re.findall(r"^ENTRYPOINT \[(.+)\]$", recipe, re.M)
    first, *ours = re.findall(r'"(.+?)"', words)
    assert first == "/opt/nvidia/nvidia_entrypoint.sh"
    assert ours[0] == "cosmos-triton"
    options = parser().parse_args([*ours[1:], "--checkpoint-dir=/c", "--", "--log-verbose=1"])
    assert options.extra == ["--log-verbose=1"]


def test_the_health_check_asks_no_proxy(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = re.findall(r'CMD \["python3", "-c", "(.+)"\]', recipe)
    answering = (
        "import http.server, threading\n"
        "class A(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers()\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), A)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
    )
    asking = program.replace("8003/", "{server.server_port}/").replace("'http:", "f'http:")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    done = subprocess.run([sys.executable, "-c", answering + asking], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hadolint_has_nothing_to_say(repository: Path) -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{Path('/usr/bin')}")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(repository / "Dockerfile.triton")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
