"""One weight file: its tensors by name, memory-mapped, without running anything the file contains.

Four containers are told apart by their first bytes: safetensors, PyTorch's zip (read by `torch.load`
with `weights_only`), TorchScript archives and PyTorch's format of before 2020. `torch.load` cannot map
the last two, so their pickles are read here by an unpickler that knows tensors and nothing else; the
code inside a TorchScript archive is never loaded.
"""

import ctypes
import io
import mmap
import pickle
import re
import stat
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from cosmos_triton.errors import CheckpointError
from cosmos_triton.mapped import regions

SUFFIXES = frozenset({".pt", ".pth", ".bin", ".jit", ".ckpt", ".safetensors"})

_ZIP_START = b"PK\x03\x04"
_ZIP_HEADER = 30  # bytes of a record's local header before its name
_OLD_PICKLE_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch's magic number, pickled
_NOT_WEIGHTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights: fetch them with `git lfs pull`",
    b"<!doctype": "a web page, not weights",
    b"<html": "a web page, not weights",
}
_KINDS = {  # of what has a name in a folder and is no file
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_KERNEL = (Path("/proc"), Path("/sys"))  # files there are made as they are read, some without end
# A record that is read whole: published ones have 0.3 MB; unpickled, a byte can become an object of 64.
_LARGEST_RECORD = 1 << 24
_MAPPED_RECORDS = ("data", "constants")  # folders of numbers, which are mapped, not read
_UNREAD_RECORDS = ("code", "extra")
_WRAPPERS = ("model", "state_dict")  # keys under which training code wraps a state dict
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file under its own names; a dict wrapped as `model` is unwrapped.

    The tensors are views of the mapped file: reading costs no memory until they are used, and writing
    to them does not change the file. Raises CheckpointError when the file cannot be read.
    """
    content = read_object(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_object(path: Path) -> Any:
    """What a weight file holds: nested dicts, lists and tuples of memory-mapped tensors.

    Raises CheckpointError, with the reason in one sentence, when it cannot be read.
    """
    try:
        return _reader(path)(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"asks to run {refused[1]}" if refused else f"has an unreadable pickle ({_first_line(error)})"
        )
        raise CheckpointError(f"{path} {reason}; only tensors are accepted") from error
    except Exception as error:  # damaged bytes surface as almost any exception of the parsers
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _check_is_file(path: Path) -> None:
    """Refuse what is no file before it is opened: a pipe would wait for a writer for ever."""
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise CheckpointError(f"{path} is {_KINDS.get(kind, 'something else')}, not a weight file")
    real = path.resolve()
    if any(real.is_relative_to(folder) for folder in _KERNEL):
        raise CheckpointError(f"{path} links to {real}, which is the kernel's and not a weight file")


def _reader(path: Path) -> Callable[[Path], Any]:
    _check_is_file(path)
    with path.open("rb") as file:
        start = file.read(64)
        size = file.seek(0, io.SEEK_END)
    if not start:
        raise CheckpointError(f"{path} is empty")
    for beginning, reason in _NOT_WEIGHTS.items():
        if start.lower().startswith(beginning):
            raise CheckpointError(f"{path} is {reason}")
    if start.startswith(_ZIP_START):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is damaged: its {size} bytes end early, as after a cut download")
        _check_unpacked_sizes(path, size)
        return _read_torchscript if _is_torchscript(path) else _read_zip
    if start.startswith(_OLD_PICKLE_START):
        return _read_old
    if start[8:9] == b"{":
        return _read_safetensors
    raise CheckpointError(f"{path} is not a weight file: it begins with {start[:8]!r}")


def _check_unpacked_sizes(path: Path, size: int) -> None:
    """Refuse an archive of `size` bytes that would take much more memory when its records are read."""
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            folder = record.filename.partition("/")[2].partition("/")[0]
            read_whole = folder not in (*_MAPPED_RECORDS, *_UNREAD_RECORDS)
            limit = _LARGEST_RECORD if read_whole else max(size, _LARGEST_RECORD)
            if folder in _MAPPED_RECORDS and record.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{path} is refused: its record {record.filename} is compressed")
            if record.file_size > limit:
                raise CheckpointError(
                    f"{path} is refused: its record {record.filename} unpacks to {record.file_size} bytes, "
                    f"and {limit} are the most that one may have in a file of {size}"
                )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict


def _read_zip(path: Path) -> Any:
    with torch.serialization.safe_globals([io.BytesIO]):  # Transformer Engine's `_extra_state` entries
        return torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: info for name, info in archive.NameToInfo.items()}
        mapped = _Mapped(path)

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            info = records[f"data/{key}"]
            if info.compress_type != zipfile.ZIP_STORED or info.file_size < count * dtype.itemsize:
                raise CheckpointError(f"{path} is damaged: record data/{key} has {info.file_size} bytes")
            return mapped.tensor(_record_start(path, info), dtype, count)

        root = _TensorUnpickler(io.BytesIO(archive.read(records["data.pkl"])), storage).load()
    return dict(_state("", root))


def _record_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored record's bytes begin: behind its local header, whose tail varies in length."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name, extra = struct.unpack("<4s22xHH", file.read(_ZIP_HEADER))
    if signature != _ZIP_START:
        raise CheckpointError(f"{path} is damaged: record {info.filename} does not begin where it should")
    return int(info.header_offset + _ZIP_HEADER + name + extra)


def _state(prefix: str, module: "_ScriptObject") -> list[tuple[str, Tensor]]:
    """Parameters and buffers of a TorchScript module and of those inside it, as `state_dict` names them."""
    found: list[tuple[str, Tensor]] = []
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, _ScriptObject):
            found += _state(f"{prefix}{name}.", value)
    return found


def _read_old(path: Path) -> Any:
    """PyTorch before 1.6: five pickles, then each storage as an int64 length and its bytes.

    The storages' order is known only after the pickles that use them, so those are read twice.
    """
    counts: dict[str, tuple[torch.dtype, int]] = {}

    def measure(dtype: torch.dtype, key: str, count: int) -> Tensor:
        counts[key] = (dtype, count)
        return torch.empty(count, dtype=dtype, device="meta")

    with path.open("rb") as file:
        for _ in range(3):  # magic number, protocol version, description of the machine
            _TensorUnpickler(file, measure).load()
        content_start = file.tell()
        _TensorUnpickler(file, measure).load()
        keys = [str(key) for key in _TensorUnpickler(file, measure).load()]
        offset = file.tell()
        size = file.seek(0, io.SEEK_END)
        starts: dict[str, int] = {}
        for key in keys:
            dtype, count = counts[key]
            starts[key] = offset + 8
            offset += 8 + count * dtype.itemsize
        if offset > size:
            raise CheckpointError(f"{path} is damaged: {size} of {offset} bytes, as after a cut download")
        mapped = _Mapped(path)
        file.seek(content_start)
        return _TensorUnpickler(
            file, lambda dtype, key, count: mapped.tensor(starts[key], dtype, count)
        ).load()


def release(tensors: Iterable[Tensor]) -> None:
    """Lets the memory go that mapped tensors took when they were read, after they have been copied.

    The tensors stay usable: what is read again comes from the file again. Tensors that are not mapped from
    a file are left alone. Do not call it for tensors that were written to: they would lose what was
    written. Does nothing where the kernel has no /proc.
    """
    views = [(region.start, region.stop) for region in regions() if region.private]
    libc = ctypes.CDLL(None)
    for tensor in tensors:
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if tensor.device.type == "cpu" and any(low <= start and stop <= high for low, high in views):
            first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


class _Mapped:
    """A file mapped into memory, copy on write."""

    def __init__(self, path: Path) -> None:
        self._storage = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)

    def tensor(self, start: int, dtype: torch.dtype, count: int) -> Tensor:
        """`count` numbers from byte `start` on: [count]."""
        piece = self._storage[start : start + count * dtype.itemsize]
        return torch.empty(0, dtype=dtype).set_(piece)


class _ScriptObject:
    """Stands for an object of any class that a TorchScript archive defines."""

    attributes: dict[str, Any]

    def __init__(self) -> None:
        self.attributes = {}

    def __new__(cls, *_: Any) -> "_ScriptObject":
        instance = super().__new__(cls)
        instance.attributes = {}
        return instance

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


class _TensorUnpickler(pickle.Unpickler):
    """Reads pickles of tensors; every other class is refused.

    Args:
        file: where the pickle starts.
        storage: called with (dtype, key, count) for each storage the pickle refers to.
    """

    _KNOWN = {  # noqa: RUF012, never changed
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "device"): _first,
        ("torch._utils", "_rebuild_tensor"): _view,
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch.jit._pickle", "build_intlist"): _first,
        ("torch.jit._pickle", "build_doublelist"): _first,
        ("torch.jit._pickle", "build_boollist"): _first,
        ("torch.jit._pickle", "build_tensorlist"): _first,
        ("torch.jit._pickle", "restore_type_tag"): _first,
    }

    def __init__(self, file: Any, storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptObject
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, reference: Any) -> Tensor:
        kind, dtype, key, _, count, *_ = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"reference to {kind!r}")
        if key not in self._storages:
            self._storages[key] = self._storage(dtype, str(key), int(count))
        return self._storages[key]
