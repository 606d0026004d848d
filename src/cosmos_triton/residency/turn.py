"""Offloaded stages use a GPU one at a time: a ticket in a cross-process queue."""

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STRUCT_FLOCK = "hhqqi4x"  # C's `struct flock` on 64-bit Linux: type, whence, start, length, pid, padding


class Turn:
    """A ticket in a first-in-first-out queue for one GPU, across threads and processes.

    Offloaded stages are processes of their own; without a queue two of them could bring their weights in
    together and exceed what either needs alone.

    Each ticket draws the next number from a common file and locks the byte of that number in it. Its turn
    has come when all bytes before its own are unlocked. A process that ends, however it ends, holds up
    nobody: its locks go with it.
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
        """Whether the turn has come; with `wait`, returns when it has."""
        try:
            self._lock(fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, fcntl.F_RDLCK, 0, self._number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def end(self) -> None:
        """Give up the turn, or the ticket."""
        os.close(self._file)

    def _lock(self, command: int, kind: int, start: int, length: int) -> None:
        # Locks of the open file: of the process, as lockf's are, they would not part two threads.
        fcntl.fcntl(self._file, command, struct.pack(_STRUCT_FLOCK, kind, os.SEEK_SET, start, length, 0))


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Waits for a turn on the device and holds it. Turns do not nest: the inner one would never come."""
    mine = Turn(device)
    try:
        mine.come(wait=True)
        yield
    finally:
        mine.end()


def _identity(device: torch.device) -> str:
    """Of the device itself: two servers may call different cards cuda:0."""
    if device.type != "cuda":
        return device.type
    return str(torch.cuda.get_device_properties(device).uuid)
