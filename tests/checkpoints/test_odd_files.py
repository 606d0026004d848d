"""Pipes, devices, links and archives that a checkpoint folder may hold beside weights."""

import errno
import json
import os
import shutil
import socket
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cosmos_triton.checkpoints.files import read_tensors
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.cli import main
from cosmos_triton.errors import CheckpointError

BASE = "Cosmos-Predict1-tiny"
Copy = Callable[..., Path]


def bind(path: Path) -> None:
    """Leaves a socket at `path`, whose whole name may be too long for one."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


ODD = {
    "pipe": (os.mkfifo, "is a named pipe, not a weight file"),
    "socket": (bind, "is a socket, not a weight file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a weight file"),
    "folder": (lambda path: path.mkdir(), "is a folder, not a weight file"),
    "kernel": (lambda path: path.symlink_to("/proc/self/environ"), "links to /proc/.*which is the kernel's"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, reason = ODD[kind]
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(CheckpointError, match=f"{path} {reason}"):
        read_tensors(path)


def test_the_other_networks_of_a_folder_with_odd_entries_are_found(
    copied: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(BASE)
    for kind in ("pipe", "socket", "device", "kernel"):
        (folder / kind).mkdir()
        ODD[kind][0](folder / kind / "model.pt")
    (folder / "everything").symlink_to("/")
    (folder / "mine").symlink_to(folder / BASE)
    main(["inspect", str(folder), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert [(part["architecture"], part["problem"]) for part in report["components"]] == [("tiny", "")]
    told = "\n".join(report["unreadable"])
    assert len(report["unreadable"]) == 5
    for kind in ("pipe", "socket", "device", "kernel"):
        assert f"{folder / kind / 'model.pt'} " in told
    assert f"{folder / 'everything'} links to /, outside {folder}, and is not searched" in told


def test_links_to_weight_files_and_into_the_hubs_cache_are_followed(copied: Copy, tmp_path: Path) -> None:
    folder, disk = copied(BASE), tmp_path / "disk"
    shutil.move(folder / BASE, disk)
    (folder / "linked").mkdir()
    (folder / "linked" / "model.pt").symlink_to(disk / "model.pt")
    assert CheckpointFolder(folder).autoregressive().architecture.name == "tiny"
    shutil.rmtree(folder / "linked")
    (folder / "linked").symlink_to(disk)
    with pytest.raises(CheckpointError, match="link its weight files instead"):
        CheckpointFolder(folder).autoregressive()
    (folder / "linked").unlink()
    snapshot = tmp_path / "hub" / "models--nvidia--Cosmos-Predict1-4B" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    disk.rename(snapshot)
    (folder / "linked").symlink_to(snapshot)
    assert CheckpointFolder(folder).autoregressive().architecture.name == "tiny"


def test_a_folder_that_may_not_be_read_is_told(copied: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(BASE)
    (folder / "secret").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "secret":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = CheckpointFolder(folder)
    assert found.autoregressive().architecture.name == "tiny"
    [left_out] = found.unreadable
    assert left_out.problem == f"{folder / 'secret'}: Permission denied; what it holds is left out"


@pytest.mark.parametrize("record", ["data.pkl", "version", ".data/serialization_id", "data/0"])
def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused_unread(record: str, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "model.pt"
    torch.save({"a": torch.zeros(4)}, whole)
    size = (1 << 24) + 1
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        names = {*source.namelist(), f"whole/{record}"}
        for name in sorted(names):
            content = bytes(size) if name == f"whole/{record}" else source.read(name)
            kind = zipfile.ZIP_DEFLATED if name == f"whole/{record}" else zipfile.ZIP_STORED
            target.writestr(name, content, kind)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=f"{path} is refused: its record whole/{record} "):
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
