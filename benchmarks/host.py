"""What a result was measured on: hardware, versions, commit, command."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cosmos_triton.host import visible_gpus

REPOSITORY = Path(__file__).parents[1]
_PACKAGES = ("torch", "numpy", "diffusers", "transformers", "onnxruntime", "nvidia-pytriton")


def describe() -> dict[str, Any]:
    """The header of every result file."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", _module(), *sys.argv[1:]]),
        "commit": commit(),
        "cpu": {"name": _cpu_name(), "cores": _cores()},
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "gpus": gpus(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _installed(name))},
    }


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
