"""Which files a process has mapped into its memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Region:
    """A view of a file: bytes from `offset` on lie at the addresses `start` to `stop`."""

    start: int
    stop: int
    offset: int
    private: bool  # what is written to it does not reach the file
    path: Path


def regions(process: int | str = "self") -> list[Region]:
    """The files that a process maps; none where the kernel has no /proc, or the process is not ours."""
    try:
        lines = (_PROCESSES / str(process) / "maps").read_text(errors="surrogateescape").splitlines()
    except OSError:  # the process may have ended meanwhile
        return []
    return [region for line in lines if (region := _region(line)) is not None]


def mapped_by_any_process() -> set[Path]:
    """Every file that some process maps, as far as we may look."""
    return {region.path for process in _processes() for region in regions(process)}


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in _PROCESSES.glob("[0-9]*"))


def _region(line: str) -> Region | None:
    fields = line.split(maxsplit=5)  # address range, permissions, offset, device, inode, path
    if len(fields) < 6 or fields[4] == "0":
        return None
    start, stop = (int(address, 16) for address in fields[0].split("-"))
    return Region(start, stop, int(fields[2], 16), fields[1].endswith("p"), Path(fields[5]))
