"""Every call to the file system and to the server fails once: one sentence, the right code, no trace."""

import builtins
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from cosmos_client.cli import main

FILE_CALLS = ("stat", "mkdir", "access", "replace", "rename", "unlink", "fsync")


class Faults:
    """Counts calls and lets one of them fail."""

    def __init__(self, failing: int, error: Callable[[], Exception]) -> None:
        self.calls: list[str] = []
        self._failing = failing
        self._error = error

    def call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self._failing:
            raise self._error()


class FailingFile:
    """An open file that may fail at each write."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        if name in ("read", "write", "writelines", "flush"):
            self._faults.call(name)
        return getattr(self._file, name)


def break_files(monkeypatch: pytest.MonkeyPatch, folder: Path, faults: Faults) -> None:
    """Lets every call about a file in `folder` go through `faults`."""

    def inside(file: object) -> bool:
        return isinstance(file, int) or str(file).startswith(str(folder))

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: object, *rest: Any, **options: Any) -> Any:
            if inside(file):
                faults.call(name)
            return real(file, *rest, **options)

        return call

    def opened(file: object, *rest: Any, **options: Any) -> Any:
        if not inside(file):
            return real_open(file, *rest, **options)
        faults.call("open")
        return FailingFile(real_open(file, *rest, **options), faults)

    real_open: Callable[..., Any] = io.open
    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(io, "open", opened)
    for name in FILE_CALLS:
        monkeypatch.setattr(os, name, wrapped(name, getattr(os, name)))


class Transport:
    """Stands in for Triton's own client, between this client and the network."""

    faults: Faults

    def __init__(self, url: str, **options: object) -> None: ...

    def get_server_metadata(self, **options: object) -> Any:
        self.faults.call("metadata")
        return SimpleNamespace(name="triton", version="2.51.0")

    def get_model_repository_index(self, **options: object) -> Any:
        self.faults.call("index")
        return SimpleNamespace(models=[SimpleNamespace(name="cosmos_base", state="READY", reason="")])

    def async_infer(
        self, model: str, inputs: list[Any], callback: Callable[..., None], **options: Any
    ) -> Any:
        self.faults.call("send")
        try:
            self.faults.call("answer")
        except InferenceServerException as error:
            callback(result=None, error=error)
        else:
            callback(result=self, error=None)
        return SimpleNamespace(cancel=lambda: None)

    def as_numpy(self, name: str) -> Any:
        if name == "tokens":
            return np.zeros((5, 1, 1), np.int32)
        content = b"video" if name == "video" else json.dumps({"seed": 0}).encode()
        return np.array([content], dtype=np.object_)

    def close(self) -> None: ...


ONE = "generate --input {0}/clip.mp4 --output {0}/new/w.mp4 --save-report {0}/r.json --save-tokens {0}/t"
MANY = "generate --batch-input-path {0}/clips.jsonl --output-folder {0}/out --concurrency 1"
COMMANDS = {
    "one": ONE,
    "to stdout": "generate --input {0}/clip.mp4 --output -",
    "many": MANY,
    "resumed": MANY,
    "anew": MANY + " --no-resume",
    "status": "status --json",
}
MADE = {
    "one": ["new/w.mp4", "r.json", "t"],
    "to stdout": [],
    "many": ["out/clip.mp4", "out/clip-2.mp4", "out/results.jsonl"],
    "resumed": ["out/clip.mp4", "out/clip-2.mp4", "out/results.jsonl"],
    "anew": ["out/clip.mp4", "out/clip-2.mp4", "out/results.jsonl", "out/results.1.jsonl"],
}


@pytest.fixture(autouse=True)
def transport(monkeypatch: pytest.MonkeyPatch) -> None:
    Transport.faults = Faults(-1, Exception)
    monkeypatch.setattr("cosmos_client._client.triton.InferenceServerClient", Transport)
    monkeypatch.setattr("cosmos_client._retry.PATIENCE_S", 0.0)
    monkeypatch.setattr("cosmos_client._batch.RECONNECT_S", 0.0)


def prepared(name: str, folder: Path) -> list[str]:
    """The words of a command and, in `folder`, what it starts from."""
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(b"clip")
    (folder / "clips.jsonl").write_text('{"visual_input": "clip.mp4"}\n')
    if name in ("resumed", "anew"):
        assert main(MANY.format(folder).split()) == 0
    (folder / "clips.jsonl").write_text('{"visual_input": "clip.mp4"}\n' * 2)
    return COMMANDS[name].format(folder).split()


def check_told(code: int, out: str, err: str) -> None:
    """What a failed command says: whole sentences on stderr, one of them an error."""
    assert "Traceback" not in err
    assert "[Errno" not in err
    assert code in (0, 1, 2)
    errors = [line for line in err.splitlines() if line.startswith("cosmos-client: error: ")]
    of_clips = [line for line in err.splitlines() if ".jsonl:" in line]
    assert len(errors) <= 1
    assert bool(errors or of_clips) == (code != 0), err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", MADE)
def test_a_file_system_that_fails(
    name: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing, calls = -1, 1
    while failing < calls:
        folder = tmp_path / str(failing)
        words = prepared(name, folder)
        capsys.readouterr()
        faults = Faults(failing, lambda: OSError(number, os.strerror(number), "a/part"))
        with monkeypatch.context() as patch:
            break_files(patch, folder, faults)
            code = main(words)
        out, err = capsys.readouterr()
        check_told(code, out, err)
        told = os.strerror(number) in err
        if code == 0:
            assert all((folder / made).is_file() for made in MADE[name]), faults.calls[failing]
        else:
            assert told or "no such file" in err, (faults.calls[failing], err)
        if failing == -1:
            assert (code, told) == (0, False)
            calls = len(faults.calls)
        if failing < 0 or faults.calls[failing] != "unlink":
            assert not list(folder.rglob("*.part"))
        failing += 1
    assert calls > 2


FAILURES = {
    "dead": ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", 1),
    "lost": ("UNAVAILABLE", "Stream removed (Socket closed)", 1),
    "full": ("UNAVAILABLE", "in ensemble 'cosmos_base', the queue of 2 videos is full", 1),
    "slow": ("DEADLINE_EXCEEDED", "Deadline Exceeded", 1),
    "odd": ("UNIMPLEMENTED", "Received http2 header with status: 404", 1),
    "forbidden": ("UNAUTHENTICATED", "no token", 1),
    "silent": (None, None, 1),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_network_that_fails(
    name: str, failure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, message, expected = FAILURES[failure]
    failing, calls = -1, 1
    while failing < calls:
        folder = tmp_path / str(failing)
        words = prepared(name, folder)
        capsys.readouterr()
        Transport.faults = Faults(failing, lambda: InferenceServerException(message, status=status))
        code = main(words)
        check_told(code, *capsys.readouterr())
        if failing == -1:
            calls = len(Transport.faults.calls)
        assert code == (0 if failing in (-1, calls) else expected)
        Transport.faults = Faults(-1, Exception)
        failing += 1
    assert calls > 1
