"""Writes a state dict in PyTorch's zip format one tensor at a time, as `torch.save` would at once."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
_STORAGES = {torch.bfloat16: torch.BFloat16Storage, torch.float32: torch.FloatStorage}


def write_state_dict(
    path: Path, shapes: Mapping[str, Shape], dtype: torch.dtype, make: Callable[[str, Shape], Tensor]
) -> None:
    """Writes tensors `name → make(name, shape)` of `dtype` to `path`; one of them is in memory at a time."""
    # Without the records' CRC-32, which takes three quarters of the time and which torch.load does not read.
    writer = torch._C.PyTorchFileWriter(str(path), False)
    writer.write_record("data.pkl", *_sized(_pickled(shapes, dtype)))
    writer.write_record("byteorder", *_sized(b"little"))
    for index, (name, shape) in enumerate(shapes.items()):
        storage = make(name, shape).to(dtype).contiguous().untyped_storage()
        writer.write_record(f"data/{index}", storage, storage.nbytes())  # type: ignore[arg-type]
    writer.write_end_of_file()


def _sized(content: bytes) -> tuple[bytes, int]:
    return content, len(content)


def _pickled(shapes: Mapping[str, Shape], dtype: torch.dtype) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, dtype).dump(
        OrderedDict(
            (name, _Tensor(_Storage(str(i), shape))) for i, (name, shape) in enumerate(shapes.items())
        )
    )
    return buffer.getvalue()


class _Storage:
    """Refers to the record that holds a tensor's numbers."""

    def __init__(self, key: str, shape: Shape) -> None:
        self.key, self.shape = key, shape


class _Tensor:
    """Pickles as a contiguous tensor over a storage."""

    def __init__(self, storage: _Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        shape = self.storage.shape
        stride = torch.empty(shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, shape, stride, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, dtype: torch.dtype) -> None:
        super().__init__(file, protocol=2)
        self._storage_type = _STORAGES[dtype]

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        if not isinstance(value, _Storage):
            return None
        count = torch.Size(value.shape).numel()
        return "storage", self._storage_type, value.key, "cpu", count
