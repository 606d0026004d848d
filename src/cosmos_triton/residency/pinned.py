"""Weights in pinned host memory, from which the GPU copies by itself."""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

_ALIGNMENT = 256  # bytes; what kernels expect of a tensor's start
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU


@dataclass(frozen=True)
class _Place:
    name: str
    start: int
    dtype: torch.dtype
    shape: torch.Size

    @property
    def end(self) -> int:
        return self.start + self.shape.numel() * self.dtype.itemsize


class _Pages(mmap.mmap):
    """Memory of the size asked for, to the page; PyTorch rounds pinned memory up to a power of two."""

    _unpin: Callable[[], object] | None = None

    def pin(self, start: int) -> None:
        """Keep the pages, the first of which is at `start`, in place until they are freed."""
        self.madvise(mmap.MADV_DONTFORK)  # a child's copy would part the pages from the GPU's
        cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        torch.cuda.check_error(cudart.cudaHostRegister(start, len(self), _PORTABLE))
        self._unpin = partial(cudart.cudaHostUnregister, start)

    def __del__(self) -> None:
        if self._unpin is not None:
            self._unpin()


@dataclass(frozen=True)
class Pack:
    """Named tensors end to end in one host buffer, so that a single copy moves them all."""

    buffer: Tensor  # [bytes] uint8
    places: tuple[_Place, ...]
    pages: _Pages  # that the buffer lies in

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Pack":
        """A copy of `tensors`, which may lie on any device; pinned where there is a GPU."""
        pack = cls.like(tensors)
        for name, view in pack.views(pack.buffer).items():
            view.copy_(tensors[name])
        pack.pin()
        return pack

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> "Pack":
        """Room for tensors of these names, types and shapes: it takes memory as it is written."""
        places: list[_Place] = []
        start = 0
        for name, tensor in tensors.items():
            places.append(_Place(name, start, tensor.dtype, tensor.shape))
            start = -(-places[-1].end // _ALIGNMENT) * _ALIGNMENT
        pages = _Pages(-1, max(start, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return cls(torch.frombuffer(pages, dtype=torch.uint8), tuple(places), pages)

    def pin(self) -> None:
        """Let the GPU fetch by itself what has been written; without a GPU nothing changes."""
        if torch.cuda.is_available():
            self.pages.pin(self.buffer.data_ptr())

    @property
    def nbytes(self) -> int:
        """Size of the buffer."""
        return self.buffer.numel()

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The tensors as they lie in `buffer` ([bytes] uint8, at least `nbytes` long), by name."""
        return {
            place.name: buffer[place.start : place.end].view(place.dtype).view(place.shape)
            for place in self.places
        }
