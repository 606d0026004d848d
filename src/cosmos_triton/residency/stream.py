"""Blocks of weights that pass through a few slots of device memory while their neighbours compute."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cosmos_triton.residency.device import empty_cache
from cosmos_triton.residency.pinned import Pack
from cosmos_triton.residency.turn import turn


class BlockStream:
    """Blocks of weights that pass through a few slots of device memory, always in the same circle.

    Use: inside `present()`, for each pass over the network and each block in order: `take` it, launch its
    work, `give_back`. Copies run on a stream of their own.

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
        self._due = 0  # the next block to take, likewise

    @contextmanager
    def present(self) -> Iterator[None]:
        """Takes the device's turn and starts copying the first blocks; frees the slots at the end."""
        with turn(self._device):
            try:
                self._open()
                yield
            finally:
                self._close()

    def take(self, index: int) -> dict[str, Tensor]:
        """Block `index` on the device; work launched from now on waits for its copy."""
        if index != self._due % len(self._packs):
            raise RuntimeError(f"block {index} was taken when {self._due % len(self._packs)} was due")
        slot = self._due % self._count
        if self._cuda:
            torch.cuda.current_stream(self._device).wait_event(self._arrived[slot])
        return self._packs[index].views(self._slots[slot])

    def give_back(self) -> None:
        """The block taken last is done with once the work launched so far has run."""
        self._due += 1
        self._copy_next()

    def _open(self) -> None:
        size = max(pack.nbytes for pack in self._packs)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(self._count)]
        if self._cuda:
            self._arrived = [torch.cuda.Event() for _ in range(self._count)]  # type: ignore[no-untyped-call]
        self._next = self._due = 0
        for _ in range(self._count):
            self._copy_next()

    def _close(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)  # work on the slots may still run
        self._slots = []
        empty_cache(self._device)

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
