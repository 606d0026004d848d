"""Where a network's weights wait for their turn: on the device, or in pinned host memory.

    resident   weights stay on the device
    offload    weights wait in pinned host memory; on the device they take no room between requests

Offloaded weights come back in one of two ways. A small network is copied whole. A deep one is
streamed: a few of its blocks are on the device at a time, and the copy of the next runs while the
present one computes. Where a block computes longer than it copies (the diffusion decoder: 51 ms
against 9 ms), streaming costs no time and the network never takes more room than those blocks.
(The autoregressive sampler needs a third way, because its CUDA graphs hold addresses: sampling/memory.py.)
"""

import fcntl
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from cosmos_triton.errors import ConfigurationError

_ALIGNMENT = 256  # bytes; what kernels expect of a tensor's start
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU


class Residency(StrEnum):
    """Where weights are between requests."""

    RESIDENT = "resident"
    OFFLOAD = "offload"

    @classmethod
    def parse(cls, text: str, what: str) -> "Residency":
        """The value named `text`; `what` names the setting in the error."""
        try:
            return cls(text)
        except ValueError:
            raise ConfigurationError(f"{what}={text!r} is neither resident nor offload") from None


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


class BlockStream:
    """Blocks of weights that pass through a few slots of device memory, always in the same circle.

    Use: `open`, then for each pass over the network and each block in order `take` it, launch its
    work, `give_back`; `close` at the end. Copies run on a stream of their own.

    Args:
        packs: one per block.
        device: where the slots are.
        slots: blocks on the device at once, at least 2 for the copy to overlap.
    """

    def __init__(self, packs: Sequence[Pack], device: torch.device, slots: int = 2) -> None:
        self._packs = list(packs)
        self._device = device
        self._count = min(slots, len(self._packs))
        self._slots: list[Tensor] = []
        self._cuda = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]
        self._arrived: list[torch.cuda.Event] = []
        self._next = 0  # the next block to copy, counted without wrapping
        self._turn = 0  # the next block to take, likewise

    def open(self) -> None:
        """Allocate the slots and start copying the first blocks."""
        size = max(pack.nbytes for pack in self._packs)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(self._count)]
        if self._cuda:
            self._arrived = [torch.cuda.Event() for _ in range(self._count)]  # type: ignore[no-untyped-call]
        self._next = self._turn = 0
        for _ in range(self._count):
            self._copy_next()

    def take(self, index: int) -> dict[str, Tensor]:
        """Block `index` on the device; work launched from now on waits for its copy."""
        if index != self._turn % len(self._packs):
            raise RuntimeError(f"block {index} was taken when {self._turn % len(self._packs)} was due")
        slot = self._turn % self._count
        if self._cuda:
            torch.cuda.current_stream(self._device).wait_event(self._arrived[slot])
        return self._packs[index].views(self._slots[slot])

    def give_back(self) -> None:
        """The block taken last is done with once the work launched so far has run."""
        self._turn += 1
        self._copy_next()

    def close(self) -> None:
        """Wait for the device and free the slots."""
        if self._cuda:
            torch.cuda.synchronize(self._device)
        self._slots = []
        release_memory(self._device)

    def _copy_next(self) -> None:
        slot, pack = self._next % self._count, self._packs[self._next % len(self._packs)]
        target = self._slots[slot][: pack.nbytes]
        self._next += 1
        if self._copies is None:
            target.copy_(pack.buffer)
            return
        self._copies.wait_stream(torch.cuda.current_stream(self._device))  # the slot's last reader
        with torch.cuda.stream(self._copies):
            target.copy_(pack.buffer, non_blocking=True)
            self._arrived[slot].record(self._copies)


class Weights(Protocol):
    """The weights of one network."""

    def present(self) -> AbstractContextManager[None]:
        """A block of code in which the network can run."""


class ResidentWeights:
    """Weights that stay on the device."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        module.to(device)

    def present(self) -> AbstractContextManager[None]:
        """Always so."""
        return nullcontext()


class OffloadedWeights:
    """Weights that are copied to the device whole for each request."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._pack = Pack.of(tensors_of(module))
        self._absent = {name: torch.empty(0, dtype=t.dtype) for name, t in tensors_of(module).items()}
        point_to(module, self._absent)

    @contextmanager
    def present(self) -> Iterator[None]:
        """Copies the weights in, and drops them at the end."""
        point_to(self._module, self._pack.views(self._pack.buffer.to(self._device, non_blocking=True)))
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            point_to(self._module, self._absent)
            release_memory(self._device)


class StreamedWeights:
    """Weights of which all but a stack of blocks is resident; the blocks stream.

    Args:
        module: the network.
        blocks: those of its submodules that run one after the other, once each, in this order.
        device: where it runs.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
        packs = [Pack.of(tensors_of(block)) for block in blocks]
        self._blocks = list(blocks)
        self._absent = [
            {name: torch.empty(0, dtype=t.dtype) for name, t in tensors_of(block).items()} for block in blocks
        ]
        self._drop()
        module.to(device)
        self._stream = BlockStream(packs, device)
        for index, block in enumerate(self._blocks):
            block.register_forward_pre_hook(self._taking(index))
            block.register_forward_hook(lambda *_: self._stream.give_back())

    @contextmanager
    def present(self) -> Iterator[None]:
        """Starts the stream, and frees its slots at the end."""
        self._stream.open()
        try:
            yield
        finally:
            self._stream.close()
            self._drop()

    def _taking(self, index: int) -> "Callable[..., None]":
        return lambda block, *_: point_to(block, self._stream.take(index))

    def _drop(self) -> None:
        for block, absent in zip(self._blocks, self._absent, strict=True):
            point_to(block, absent)


class Turn:
    """A place in the queue for a device, which offloaded stages, processes of their own, use one at a time.

    Without it two of them could bring their weights in together and exceed what either needs alone.

    Each draws the next number from a common file and locks the byte of that number in it; who finds all bytes
    before its own unlocked has the turn. So turns come strictly in the order of the numbers, and a process
    that ends, however it ends, holds up nobody: its locks go with it.
    """

    def __init__(self, device: torch.device) -> None:
        name = f"cosmos-triton-{os.getuid()}-{_identity(device)}.turn"
        self._file = os.open(Path(tempfile.gettempdir()) / name, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # while a number is drawn
        self._number = int.from_bytes(os.pread(self._file, 8, 0), "little") + 1
        os.pwrite(self._file, self._number.to_bytes(8, "little"), 0)
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, self._number, 1)
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def come(self, *, wait: bool) -> bool:
        """Whether it is this one's turn; with `wait`, returns when it is."""
        try:
            self._lock(fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, fcntl.F_RDLCK, 0, self._number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def end(self) -> None:
        """Give up the turn, or the place in the queue."""
        os.close(self._file)

    def _lock(self, command: int, kind: int, start: int, length: int) -> None:
        # Locks of the open file: of the process, as lockf's are, they would not part two threads.
        fcntl.fcntl(self._file, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def _identity(device: torch.device) -> str:
    """Of the device itself: two servers may call different cards cuda:0."""
    if device.type != "cuda":
        return device.type
    return str(torch.cuda.get_device_properties(device).uuid)


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Waits for the device's turn and holds it."""
    mine = Turn(device)
    try:
        mine.come(wait=True)
        yield
    finally:
        mine.end()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, saved or not, by name."""
    return {
        **{name: parameter.data for name, parameter in module.named_parameters()},
        **dict(module.named_buffers()),
    }


def point_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the module's parameters and buffers of these names refer to `tensors`."""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if leaf in owner._parameters:
            parameter = owner._parameters[leaf]
            assert parameter is not None
            parameter.data = tensor
        else:
            owner._buffers[leaf] = tensor


def release_memory(device: torch.device) -> None:
    """Give the room of finished work back to the card, where other stages can use it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
