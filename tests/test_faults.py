"""Each call to the file system fails once in every command: one sentence that names a file, and no trace."""

import builtins
import errno
import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cosmos_export import steps, worker
from cosmos_export.job import ExportJob
from cosmos_triton.checkpoints import hub as hubs
from cosmos_triton.cli import main
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.sentences import sentence, telling
from cosmos_triton.server import launch
from support.hub_server import Hub, serving

NUMBERS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO)
FILE_CALLS = ("stat", "mkdir", "replace", "unlink", "scandir", "statvfs")
BASE = "Cosmos-Predict1-tiny"
Prepare = Callable[[Path], list[str]]


class Faults:
    """Counts the calls about files in a folder and lets one of them fail."""

    def __init__(self, folder: Path, failing: int) -> None:
        self.calls: list[str] = []
        self.error = NUMBERS[failing % len(NUMBERS)]
        self._folder, self._failing = folder, failing

    def inside(self, file: object) -> bool:
        return isinstance(file, str | Path) and str(file).startswith(str(self._folder))

    def call(self, name: str, file: object = None) -> None:
        self.calls.append(f"{name} {file or ''}")
        if len(self.calls) - 1 == self._failing:
            named = () if file is None else (str(file),)  # an open file's errors do not say which it is
            raise OSError(self.error, os.strerror(self.error), *named)


class FailingFile:
    """An open file that may fail at each read and write."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        if name in ("read", "write", "truncate"):
            self._faults.call(name)
        return getattr(self._file, name)


@contextmanager
def failing_files(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> Iterator[None]:
    real_open: Callable[..., Any] = io.open

    def opened(file: object, *rest: Any, **options: Any) -> Any:
        if not faults.inside(file):
            return real_open(file, *rest, **options)
        faults.call("open", file)
        return FailingFile(real_open(file, *rest, **options), faults)

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, *rest: Any, **options: Any) -> Any:
            if faults.inside(file):
                faults.call(name, file)
            return real(file, *rest, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        for name in FILE_CALLS:
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        yield


def walk(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[int]:
    """Runs a command with no call failing, then with each in turn; returns the exit codes."""
    codes: list[int] = []
    calls = 1
    while len(codes) <= calls:
        failing = len(codes) - 1
        folder = tmp_path / f"{len(codes)}"
        words = prepare(folder)
        capsys.readouterr()
        faults = Faults(folder, failing)
        with failing_files(monkeypatch, faults):
            codes.append(main(words))
        err = capsys.readouterr().err
        sentences = [line for line in err.splitlines() if line.startswith("cosmos-triton: ")]
        assert "Traceback" not in err
        assert "[Errno" not in err
        if failing < 0:
            calls = len(faults.calls)
            assert not sentences
        elif codes[-1] != codes[0]:
            assert len(sentences) == 1, faults.calls[failing]
        for told in sentences:
            assert str(folder) in told, faults.calls[failing]
            assert os.strerror(faults.error) in told, faults.calls[failing]
    assert calls > 5
    return codes


def test_init_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "init-random --only autoregressive --checkpoint-dir {}"
    codes = walk(lambda folder: words.format(folder).split(), tmp_path, monkeypatch, capsys)
    assert codes[0] == 0
    assert set(codes) == {0, 1}


def test_inspect(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(folder: Path) -> list[str]:
        snapshots = folder / "hub" / "models--nvidia--x"
        (snapshots / "snapshots" / "abc").mkdir(parents=True)
        (snapshots / "snapshots" / "abc" / "model.pt").symlink_to(tiny / BASE / "model.pt")
        (snapshots / "refs").mkdir()
        (snapshots / "refs" / "main").write_text("abc")
        (folder / "everything").symlink_to("/")
        return ["inspect", str(folder)]

    assert set(walk(prepare, tmp_path, monkeypatch, capsys)) == {1}  # a base model alone makes no video


def test_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = {f"{name}.jit": os.urandom(1_100) for name in ("encoder", "decoder")}
    repositories = {
        "nvidia/Cosmos-Predict1-4B": {"model.pt": os.urandom(3_000)},
        "nvidia/Cosmos-Tokenize1-DV8x16x16-720p": archives,
    }
    words = "download --models 4B --without guardrail diffusion-decoder --checkpoint-dir {}"
    with serving(Hub(repositories=repositories)) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hubs.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(hubs.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hubs, "_PAUSE_S", 0.0)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        codes = walk(lambda folder: words.format(folder).split(), tmp_path, monkeypatch, capsys)
    assert codes[0] == 0
    assert {1, 7} <= set(codes) <= {0, 1, 7}


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-", "2>/dev/full >/dev/full", "2>&- >&-"])
def test_streams_that_cannot_be_written_to(redirected: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m cosmos_triton inspect {tmp_path} {redirected}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    if "2>" in redirected:
        assert done.stderr == ""
    else:
        [line] = done.stderr.splitlines()
        assert line.startswith("cosmos-triton: standard output: ")


REFUSALS: dict[str, Callable[[], Exception]] = {
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "names": lambda: OSError(-2, "Name or service not known"),
    "late": lambda: TimeoutError("timed out"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_network_that_fails_at_each_call(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "_PAUSE_S", 0.0)
    file = hubs.HubFile("nvidia/x", "abc", "model.pt", 3, sha256="0" * 64)
    calls: dict[str, Callable[[], object]] = {
        "HfApi": lambda: hubs.list_files("nvidia/x"),
        "get_hf_file_metadata": lambda: hubs.described(file),
        "get_session": lambda: hubs.fetch(file, tmp_path / "model.pt"),
    }

    def refuse(*_: object, **__: object) -> None:
        raise REFUSALS[kind]()

    for name, call in calls.items():
        monkeypatch.setattr(hubs, name, refuse)
        with pytest.raises(hubs.DownloadError) as told:
            call()
        assert "[Errno" not in str(told.value)
        assert "\n" not in str(told.value)


def test_a_full_cache_disk_and_a_full_graph_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(launch, "find_installation", lambda: None)
    monkeypatch.setattr(launch, "work_folder", lambda: tmp_path / "work")
    monkeypatch.setattr(launch, "command", full)
    folders = {"model_repository": Path(__file__).parents[1] / "model_repository", "checkpoint_dir": tmp_path}
    settings = launch.ServerSettings.on_free_ports(**folders, profile="cpu")
    with pytest.raises(ConfigurationError, match=rf"^{tmp_path}/work: No space left"):
        launch.started(settings).__enter__()
    monkeypatch.setattr(steps, "export_onnx", full)
    with pytest.raises(ConfigurationError, match=rf"^{tmp_path}/onnx: No space left"):
        worker.run("video_encoder", ExportJob(tmp_path, None))
    gc.enable()  # which a worker, a process of its own, turns off


def test_what_knows_the_file_names_it() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert sentence(full, "plan.bin") == "plan.bin: No space left on device"
    assert sentence(OSError(errno.EIO, "broken", "own"), "plan.bin") == "own: broken"
    assert sentence(OSError("port 8001 is taken")) == "port 8001 is taken"
    with pytest.raises(ConfigurationError, match=r"^cache: No space left on device$"), telling("cache"):
        raise full
