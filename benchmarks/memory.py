"""Host and GPU memory of a server while it works, by process and by stage.

Host memory is the proportional set size: a page shared by two processes counts half in each, so the
sum over processes is what the server holds. GPU memory is what the driver counts for each process, its
CUDA context included.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVER = "tritonserver"
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Sample:
    """Bytes at one moment."""

    seconds: float  # since sampling began
    host: Mapping[str, int]  # by stage; `tritonserver` for the server's own process
    gpu: Mapping[str, int]  # by stage, likewise
    gpu_total: int | None  # in use on the card, whoever uses it; None without a GPU


@dataclass
class Record:
    """All samples of a run, and the times at which something was noted."""

    samples: list[Sample] = field(default_factory=list)
    notes: list[tuple[float, str]] = field(default_factory=list)

    def peaks(self) -> dict[str, Any]:
        """The largest values: of each stage on its own, and of the sums, in GB."""
        hosts = [sum(sample.host.values()) for sample in self.samples]
        gpus = [sample.gpu_total for sample in self.samples if sample.gpu_total is not None]
        return {
            "host_gb": _gb(max(hosts, default=0)),
            "host_by_stage_gb": _stage_peaks([sample.host for sample in self.samples]),
            "gpu_gb": _gb(max(gpus)) if gpus else None,
            "gpu_by_stage_gb": _stage_peaks([sample.gpu for sample in self.samples]),
            "samples": len(self.samples),
        }

    def as_dict(self) -> dict[str, Any]:
        """For the result file: columns over time, in MB."""
        stages = {
            kind: sorted({s for x in self.samples for s in getattr(x, kind)}) for kind in ("host", "gpu")
        }
        return {
            "seconds": [round(sample.seconds, 2) for sample in self.samples],
            "gpu_total_mb": [_mb(sample.gpu_total) for sample in self.samples],
            **{
                f"{kind}_mb": {
                    stage: [_mb(getattr(sample, kind).get(stage, 0)) for sample in self.samples]
                    for stage in names
                }
                for kind, names in stages.items()
            },
            "notes": [[round(seconds, 2), text] for seconds, text in self.notes],
        }


class Sampler:
    """Watches a server's processes from a thread.

    Args:
        pid: of tritonserver; its stubs are found among its descendants. None watches the GPU alone.
        interval_s: between samples.
    """

    def __init__(self, pid: int | None, interval_s: float = 0.5) -> None:
        self._pid = pid
        self._interval_s = interval_s
        self._gpu = _Gpu.open()
        self._began = time.monotonic()
        self._stop = threading.Event()
        self.record = Record()

    def note(self, text: str) -> None:
        """Mark the present moment."""
        self.record.notes.append((time.monotonic() - self._began, text))

    @contextmanager
    def running(self) -> Iterator["Sampler"]:
        """Samples until the block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def sample(self) -> Sample:
        """One sample, now."""
        stages = {} if self._pid is None else server_processes(self._pid)
        host: dict[str, int] = {}
        for pid, stage in stages.items():
            host[stage] = host.get(stage, 0) + proportional_bytes(pid)
        gpu, total = self._gpu.used(stages) if self._gpu else ({}, None)
        return Sample(time.monotonic() - self._began, host, gpu, total)

    def _run(self) -> None:
        while True:
            self.record.samples.append(self.sample())
            if self._stop.wait(self._interval_s):
                return


def server_processes(pid: int) -> dict[int, str]:
    """The server's own process and its stubs' → the stage each one runs."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        text = _read(path)
        if text:
            children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, waiting = {}, [pid]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        stage = _stage(_read(Path(f"/proc/{process}/cmdline")))
        if stage:
            found[process] = stage
    return found


def proportional_bytes(pid: int) -> int:
    """Resident memory with shared pages divided among those who share them; 0 for a process that ended."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class _Gpu:
    """The first GPU that CUDA may use, through NVML."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @classmethod
    def open(cls) -> "_Gpu | None":
        try:
            import pynvml  # type: ignore[import-untyped]

            pynvml.nvmlInit()
            chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
            by_uuid = chosen.startswith("GPU-")  # NVML itself does not heed the variable
            find = pynvml.nvmlDeviceGetHandleByUUID if by_uuid else pynvml.nvmlDeviceGetHandleByIndex
            return cls(pynvml, find(chosen if by_uuid else int(chosen)))
        except Exception:  # no library, no driver or no card: NVML has an exception class for each
            return None

    def used(self, stages: Mapping[int, str]) -> tuple[dict[str, int], int]:
        used: dict[str, int] = {}
        for process in self._library.nvmlDeviceGetComputeRunningProcesses(self._handle):
            stage = stages.get(process.pid, "others")
            used[stage] = used.get(stage, 0) + (process.usedGpuMemory or 0)
        return used, int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used)


def _stage(command_line: str) -> str:
    """`…/model_repository/<stage>/1/model.py` of a stub; the server by its own name."""
    words = command_line.split("\0")
    if words and os.path.basename(words[0]) == _STUB and len(words) > 1:
        return Path(words[1]).parts[-3]
    return SERVER if words and os.path.basename(words[0]) == SERVER else ""


def _stage_peaks(columns: list[Mapping[str, int]]) -> dict[str, float]:
    stages = sorted({stage for column in columns for stage in column})
    return {stage: _gb(max(column.get(stage, 0) for column in columns)) for stage in stages}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the process ended meanwhile, or is not ours
        return ""


def _gb(count: int) -> float:
    return round(count / 1e9, 2)


def _mb(count: int | None) -> int | None:
    return None if count is None else round(count / 1e6)
