"""Every container a weight file comes in, and everything that is not one."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cosmos_triton.checkpoints.files import read_object, read_tensors, release
from cosmos_triton.errors import CheckpointError

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3).to(torch.bfloat16),
    "b.weight": torch.arange(4.0),
    "ids": torch.arange(3),
}


def same(found: dict[str, Tensor]) -> bool:
    return set(found) == set(TENSORS) and all(
        torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype
        for name in TENSORS
    )


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_torch_zip_flat_and_wrapped(tmp_path: Path, wrapper: str | None) -> None:
    torch.save({wrapper: TENSORS, "step": 3} if wrapper else TENSORS, tmp_path / "x.pt")
    assert same(read_tensors(tmp_path / "x.pt"))


def test_safetensors_under_any_suffix(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.pt")
    assert same(read_tensors(tmp_path / "x.pt"))


def test_old_format_with_shared_and_transposed_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = TENSORS | {
        "whole": base,
        "row": base[1],
        "turned": base.T,
        "parameter": torch.nn.Parameter(base),
    }
    torch.save(tensors, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    found = read_tensors(tmp_path / "x.bin")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name


class _Part(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(4.0).to(torch.bfloat16))
        self.register_buffer("levels", torch.tensor([8, 5], dtype=torch.int32))
        self.names = ["x", "y"]
        self.sizes = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class _Whole(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = torch.nn.Sequential(_Part(), torch.nn.Conv3d(2, 3, 1))
        self.same = self.steps[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.steps[0](x)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_state_without_its_graph(tmp_path: Path, traced: bool) -> None:
    module = _Whole()
    script = torch.jit.trace(module, torch.ones(4)) if traced else torch.jit.script(module)
    script.save(str(tmp_path / "x.jit"))
    expected = torch.jit.load(str(tmp_path / "x.jit")).state_dict()
    found = read_tensors(tmp_path / "x.jit")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_code_is_never_loaded(tmp_path: Path) -> None:
    torch.jit.script(_Whole()).save(str(tmp_path / "x.jit"))
    with zipfile.ZipFile(tmp_path / "x.jit") as archive, zipfile.ZipFile(tmp_path / "y.jit", "w") as changed:
        for info in archive.infolist():
            is_code = info.filename.endswith(".py")
            changed.writestr(info.filename, b"not TorchScript" if is_code else archive.read(info))
    with pytest.raises(RuntimeError):
        torch.jit.load(str(tmp_path / "y.jit"))
    assert "steps.1.weight" in read_tensors(tmp_path / "y.jit")


def test_extra_state_of_transformer_engine_is_no_obstacle(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "a._extra_state": io.BytesIO(b"state")}, tmp_path / "x.pt")
    assert set(read_tensors(tmp_path / "x.pt")) == {"a"}


def test_other_objects(tmp_path: Path) -> None:
    torch.save((torch.zeros(2), torch.ones(2)), tmp_path / "mean_std.pt")
    mean, std = read_object(tmp_path / "mean_std.pt")
    assert (mean.sum(), std.sum()) == (0, 2)
    with pytest.raises(CheckpointError, match="holds a tuple, not tensors by name"):
        read_tensors(tmp_path / "mean_std.pt")


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    for name, old in (("new.pt", False), ("old.pt", True)):
        torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=not old)
        before = (tmp_path / name).read_bytes()
        read_tensors(tmp_path / name)["b.weight"].fill_(7)
        assert (tmp_path / name).read_bytes() == before


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch harm",)


def _zip_with_code(path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": _Harmful()}, path)


def _old_with_code(path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": _Harmful()}, path, _use_new_zipfile_serialization=False)


def _script_with_code(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", pickle.dumps(_Harmful(), protocol=2))


def _cut(path: Path) -> None:
    torch.save({"a": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-5_000])


def _cut_old(path: Path) -> None:
    torch.save({"a": torch.ones(10_000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5_000])


def _cut_safetensors(path: Path) -> None:
    save_file({"a": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-5_000])


def _overwritten(path: Path) -> None:
    torch.save({"a": torch.ones(10_000)}, path)
    data = bytearray(path.read_bytes())
    data[40:300] = bytes(260)
    path.write_bytes(data)


def _record_too_short(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/data/0", b"")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_zip_with_code, "asks to run (posix|os).system; only tensors are accepted"),
        (_old_with_code, "asks to run (posix|os).system; only tensors are accepted"),
        (_script_with_code, "asks to run (posix|os).system; only tensors are accepted"),
        (_cut, "end early, as after a cut download"),
        (_cut_old, "is damaged: .* bytes, as after a cut download"),
        (_cut_safetensors, "is damaged"),
        (_overwritten, "is damaged"),
        (_record_too_short, "is damaged"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(bytes(10_000)), "is not a weight file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "a web page"),
        (lambda path: path.write_text("hello"), "is not a weight file: it begins with b'hello'"),
        (lambda path: path.mkdir(), "is a folder, not a weight file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
    ],
)
def test_what_is_no_weight_file_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} .*{reason}") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("old", [False, True])
def test_released_tensors_are_read_again_from_the_file(tmp_path: Path, old: bool) -> None:
    torch.save({"a": torch.arange(1 << 20)}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    mapped = read_tensors(tmp_path / "x.pt")["a"]
    in_memory = torch.arange(1 << 20)
    release([mapped, in_memory, torch.empty(3, device="meta")])
    assert torch.equal(mapped, in_memory)
