"""Where an engine's weights and cache are: on the device for good, or only while it works."""

from typing import Protocol

import torch
from torch import Tensor

from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from cosmos_triton.checkpoints import release
from cosmos_triton.residency import AddressRange, Pack, Turn, empty_cache, point_to, reserve, tensors_of


class DeviceMemory(Protocol):
    """What an engine keeps on its device: weights and cache. One thread at a time uses it."""

    stays: bool  # it never leaves the device
    present: bool  # it is on the device: the network can run

    @property
    def absent_bytes(self) -> int:
        """Bytes the weights will need on the device when they come back.

        Subtract them from free memory when sizing the cache.
        """

    def cache(self, nbytes: int) -> Tensor:
        """Room for keys and values: [nbytes] uint8, zeros after each `load`. Called once."""

    def load(self, *, wait: bool = False) -> bool:
        """Bring everything to the device. False: another stage has the device; with `wait`, never so."""

    def unload(self) -> None:
        """Called when the engine has no work: give up what is not needed until the next `load`."""


class ResidentMemory:
    """The weights stay where the network has them."""

    stays = present = True
    absent_bytes = 0

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def cache(self, nbytes: int) -> Tensor:
        """Zeros on the device."""
        return torch.zeros(nbytes, dtype=torch.uint8, device=self._device)

    def load(self, *, wait: bool = False) -> bool:
        """It is there."""
        return True

    def unload(self) -> None:
        """Weights and cache stay; what prefill used for activations goes back to the card."""
        empty_cache(self._device)


class OffloadedMemory:
    """Weights that wait in pinned host memory, and a cache that is dropped.

    Both come back to the same addresses each time, because CUDA graphs hold addresses. What the allocator has
    given to graphs and to the state of sequences is small and stays.

    Args:
        network: best in host memory; its parameters and tables are taken from it and then lie on `device`.
        device: where it is to run.
    """

    stays = False

    def __init__(self, network: AutoregressiveTransformer, device: torch.device) -> None:
        self.present = False
        self._device = device
        tensors = tensors_of(network)
        self._pack = Pack.like(tensors)
        self._weights = reserve(self._pack.nbytes, device)
        self._cache: AddressRange | None = None
        self._turn: Turn | None = None
        waiting, running = self._pack.views(self._pack.buffer), self._pack.views(self._weights.buffer)
        for name in list(tensors):  # one by one, so that the weights are in host memory once
            tensor = tensors.pop(name)
            waiting[name].copy_(tensor)
            release([tensor])
            point_to(network, {name: running[name]})
        self._pack.pin()

    @property
    def absent_bytes(self) -> int:
        """All weights, or none."""
        return 0 if self.present else self._pack.nbytes

    def cache(self, nbytes: int) -> Tensor:
        """Addresses; the memory comes with the weights."""
        self._cache = reserve(nbytes, self._device)
        return self._cache.buffer

    def load(self, *, wait: bool = False) -> bool:
        """Takes the device's turn, gets the memory, copies the weights into it."""
        if self._turn is None:
            self._turn = Turn(self._device)
        if not self._turn.come(wait=wait):
            return False
        try:
            self._fill()
        except BaseException:
            self.unload()
            raise
        self.present = True
        return True

    def unload(self) -> None:
        """Drops the memory once the device has done its work, and gives up the turn or the wait for it."""
        if self._turn is None:
            return
        try:
            for memory in self._ranges():
                memory.drop()
            empty_cache(self._device)
        finally:
            self.present = False
            self._turn.end()
            self._turn = None

    def _fill(self) -> None:
        for memory in self._ranges():
            memory.fill()
        self._weights.buffer.copy_(self._pack.buffer, non_blocking=True)
        if self._cache is not None:
            self._cache.buffer.zero_()

    def _ranges(self) -> list[AddressRange]:
        return [self._weights] if self._cache is None else [self._weights, self._cache]
