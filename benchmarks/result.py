"""A result: figures under one header, which says what they were measured on and how to measure them again.

A field of the header that an older result lacks is listed in its `not_recorded`.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cosmos_triton.host import visible_gpus
from cosmos_triton.tables import text_table

REPOSITORY = Path(__file__).parents[1]
HEADER = ("benchmark", "date", "command", "commit", "cpu", "memory_gb", "gpus", "python", "packages")
_PACKAGES = (
    *("torch", "numpy", "diffusers", "transformers", "onnxruntime", "nvidia-pytriton"),
    *("onnxscript", "tensorrt", "tensorrt-rtx-cu13-bindings"),
)
_FOLDERS = re.compile(r"(?<![\w.:/-])/(?:[^\s/,=]+/)+")


def describe(benchmark: str) -> dict[str, Any]:
    """The header of every result: `HEADER`, in that order."""
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_folders(" ".join(["python", "-m", _module(), *sys.argv[1:]])),
        "commit": commit(),
        "cpu": {"name": _cpu_name(), "cores": _cores()},
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "gpus": gpus(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _installed(name))},
    }


def finish(table: str, result: Mapping[str, Any], output: Path | None = None) -> None:
    """Show the table, write the result to `output`, and end stdout with the result as one line."""
    print(f"{table}\n")
    if output is not None:
        write(result, output)
    print(json.dumps(result))


def write(result: Mapping[str, Any], path: Path) -> None:
    """The result as a file; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Measurements as a text table: a column for each key that any of them has, the first flush left."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_cell(row.get(key)) for key in keys] for row in rows)]
    return text_table(cells, right=range(1, len(keys)))


def without_folders(words: str) -> str:
    """A text with absolute paths cut to their last part: where a file lay concerns one machine."""
    return _FOLDERS.sub("", words)


def commit() -> str:
    """The checked-out commit, `-dirty` with changes; $GIT_COMMIT where there is no repository."""
    try:
        run = subprocess.run(
            ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT", "")
    return run.stdout.strip()


def gpus() -> list[dict[str, str]]:
    """Name, memory and driver of each GPU that CUDA may use; none where there is none."""
    return [{"name": gpu.name, "memory": gpu.memory, "driver": gpu.driver} for gpu in visible_gpus()]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _module() -> str:
    specification = sys.modules["__main__"].__spec__
    return specification.name if specification else Path(sys.argv[0]).name


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            return int(line.split()[1]) * 1024
    return 0


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
