# mypy: disable-error-code="import-not-found"
"""Memory that goes and comes back to the same addresses.

A CUDA graph holds the addresses of what it reads and writes, so weights that leave the device between two
replays must return to where they were. An allocator does not promise that; virtual memory does: addresses are
reserved once, and physical memory is mapped to them when it is needed.
"""

import mmap
from typing import Any, Protocol

import torch
from torch import Tensor


class AddressRange(Protocol):
    """A stretch of a device's memory of which the addresses stay while the memory comes and goes.

    It starts without memory. Its addresses are kept until the process ends.
    """

    buffer: Tensor  # [bytes] uint8 at addresses that never change; may be touched between `fill` and `drop`

    def fill(self) -> None:
        """Get the memory. Its contents are undefined."""

    def drop(self) -> None:
        """Give the memory back, if it is there, once the device has done what it was given."""


def reserve(nbytes: int, device: torch.device) -> AddressRange:
    """A range of `nbytes` ≥ 1 on a CPU or a CUDA device.

    Raises:
        RuntimeError: the CUDA driver refused; here and in `fill` and `drop`.
    """
    return _DeviceRange(nbytes, device) if device.type == "cuda" else _HostRange(nbytes)


class _HostRange:
    """Pages of this process; the system takes those back that it is told are not needed."""

    def __init__(self, nbytes: int) -> None:
        self._pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.buffer = torch.frombuffer(self._pages, dtype=torch.uint8)

    def fill(self) -> None:
        """Pages come when they are written."""

    def drop(self) -> None:
        self._pages.madvise(mmap.MADV_DONTNEED)


class _DeviceRange:
    """Addresses from the CUDA driver, to which memory of one device is mapped."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        from cuda.bindings import driver  # PyTorch's CUDA builds depend on it; its CPU builds lack it

        torch.cuda.synchronize(device)  # the calls below need the device's context
        self._driver = driver
        self._filled = False
        self._device = device
        self._allocation = driver.CUmemAllocationProp()
        self._allocation.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        self._allocation.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        self._allocation.location.id = torch.cuda.current_device() if device.index is None else device.index
        self._access = driver.CUmemAccessDesc()
        self._access.location = self._allocation.location
        self._access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        smallest = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        unit = _checked(driver.cuMemGetAllocationGranularity(self._allocation, smallest))
        self._size = -(-nbytes // unit) * unit
        self._start = int(_checked(driver.cuMemAddressReserve(self._size, 0, 0, 0)))
        self._map(unit)  # PyTorch asks the driver whose memory it is
        self.buffer = torch.as_tensor(_Bytes(self._start, nbytes), device=device)
        self._unmap(unit)

    def fill(self) -> None:
        torch.cuda.synchronize(self._device)  # this may be a thread that has no context yet
        self._map(self._size)
        self._filled = True

    def drop(self) -> None:
        if self._filled:
            torch.cuda.synchronize(self._device)
            self._unmap(self._size)
            self._filled = False

    def _map(self, size: int) -> None:
        driver = self._driver
        memory = _checked(driver.cuMemCreate(size, self._allocation, 0))
        try:
            _checked(driver.cuMemMap(self._start, size, 0, memory, 0))
        finally:
            _checked(driver.cuMemRelease(memory))  # the mapping keeps it until it is undone
        try:
            _checked(driver.cuMemSetAccess(self._start, size, [self._access], 1))
        except RuntimeError:
            self._unmap(size)
            raise

    def _unmap(self, size: int) -> None:
        _checked(self._driver.cuMemUnmap(self._start, size))


class _Bytes:
    """Device memory as PyTorch can take it over, without a copy."""

    def __init__(self, start: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (start, False),
            "version": 3,
        }


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver returned besides its status."""
    status, *values = answer
    if int(status):
        kind = torch.OutOfMemoryError if status.name == "CUDA_ERROR_OUT_OF_MEMORY" else RuntimeError
        raise kind(f"the CUDA driver answered {status.name}")
    return values[0] if values else None
