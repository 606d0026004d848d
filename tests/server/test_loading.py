import io
import os
import time
from pathlib import Path

import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.server.launch import Server, ServerSettings, serving
from cosmos_triton.server.loading import Log, Stubs, problem

CONFIG = """\
name: "toy"
backend: "python"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
MODEL = """\
import os, time


class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return []
"""


class ToySettings(ServerSettings):
    """A server of one small model."""

    def __post_init__(self) -> None:
        """Nothing of the real repository is here."""

    @property
    def models(self) -> list[str]:
        return ["toy"]


def read(*lines: str) -> Log:
    log = Log(io.BytesIO(), io.BytesIO())
    for line in lines:
        log.take(line)
    return log


def nobody() -> Stubs:
    return Stubs(os.getpid())


def test_what_is_loading_is_known() -> None:
    log = read(
        """I1125 09:32:38.123407 15565 model_lifecycle.cc:472] "loading: ar_sampler:1\"""",
        """2026-11-25T09:33:34Z I 16181 model_lifecycle.cc:472] "loading: media_decoder:1\"""",
        """2026-11-25T09:33:34Z I 16181 model_lifecycle.cc:839] "successfully loaded 'media_decoder'\"""",
    )
    assert log.loading == {"ar_sampler"}
    assert problem(log, nobody()) is None


def test_a_failure_is_its_first_line() -> None:
    log = read(
        "E1125 09:31:39.526481 15011 model_lifecycle.cc:642] \"failed to load 'echo' version 1: Internal: "
        r"ValueError: the weights are damaged\n\nAt:\n  /tmp/echo/1/model.py(5): initialize\n"
        '"'
    )
    assert problem(log, nobody()) == "stage echo could not be loaded: ValueError: the weights are damaged"


def test_a_stub_that_ended_is_named_with_what_it_said_last() -> None:
    log = read(
        "terminate called after throwing an instance of 'std::invalid_argument'",
        "  what():  stol",
        "E1125 09:31:46.9 15074 model_lifecycle.cc:642] \"failed to load 'echo' version 1: Internal: Stub "
        "process 'echo_0_0' is not healthy.\"",
        "error: creating server: Internal - failed to load all models",
    )
    told = problem(log, nobody())
    assert told == "the process of stage echo ended while it loaded; the last that was said: what():  stol"


def test_output_goes_on_where_nobody_reads_it() -> None:
    source, sink = io.BytesIO(b"one\ntwo\n"), io.BytesIO()
    sink.close()
    log = Log(source, sink)
    log.join()
    assert log.last_words == "two"


def repository(folder: Path, initialize: str) -> Path:
    (folder / "toy" / "1").mkdir(parents=True)
    (folder / "toy" / "config.pbtxt").write_text(CONFIG)
    (folder / "toy" / "1" / "model.py").write_text(MODEL.format(initialize=initialize))
    return folder


def serve(folder: Path, log: Path, timeout_s: float = 60) -> Server:
    settings = ToySettings.on_free_ports(
        model_repository=folder, checkpoint_dir=folder, profile="cpu", ensembles=()
    )
    with log.open("wb") as file, serving(settings, file, timeout_s) as server:
        assert server.ready()
    return server


@pytest.mark.triton
@pytest.mark.parametrize("name", ["my clone", "josé", "it's (1) & more"])
def test_a_repository_and_checkpoints_in_any_folder(tmp_path: Path, name: str) -> None:
    folder = repository(
        tmp_path / name, "assert os.path.isdir(os.environ['COSMOS_CHECKPOINT_DIR'].encode('ascii'))"
    )
    server = serve(folder, tmp_path / "log")
    assert server.process.returncode == 0, (tmp_path / "log").read_text()


@pytest.mark.triton
@pytest.mark.parametrize(
    ("initialize", "told"),
    [
        ("raise ValueError('no such weights')", "stage toy could not be loaded: ValueError: no such weights"),
        ("os._exit(3)", "the process of stage toy ended while it loaded"),
        ("os.write(2, b'out of luck\\n'); os.abort()", "ended while it loaded; .* out of luck"),
    ],
)
def test_a_stage_that_fails_is_named_at_once(tmp_path: Path, initialize: str, told: str) -> None:
    folder = repository(tmp_path / "models", initialize)
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=told):
        serve(folder, tmp_path / "log")
    assert time.monotonic() - began < 30


@pytest.mark.triton
def test_a_stub_that_dies_before_triton_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As below a folder with a space, were it not for the link: Triton would wait for ever."""
    folder = repository(tmp_path / "my clone", "pass")
    monkeypatch.setattr("cosmos_triton.server.launch.plain", lambda path, links: path)
    with pytest.raises(ConfigurationError, match="the process of stage toy ended while it loaded"):
        serve(folder, tmp_path / "log")


@pytest.mark.triton
def test_a_stage_that_never_ends_loading_is_named(tmp_path: Path) -> None:
    folder = repository(tmp_path / "models", "time.sleep(60)")
    with pytest.raises(ConfigurationError, match="not ready after 3 s, still loading toy"):
        serve(folder, tmp_path / "log", timeout_s=3)
