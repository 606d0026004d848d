"""Which GPUs this machine lets us use."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"

_QUERY = (
    "nvidia-smi",
    "--query-gpu=index,uuid,compute_cap,driver_version,memory.total,name",
    "--format=csv,noheader",
)


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine."""

    name: str
    compute_capability: str
    driver: str
    memory: str = ""  # as nvidia-smi tells it: 81559 MiB


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs that CUDA may use: all, or those that CUDA_VISIBLE_DEVICES names; none without a driver."""
    try:
        listing = subprocess.run(_QUERY, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return chosen(listing, environment.get(VISIBLE_VARIABLE))


def chosen(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs of nvidia-smi's listing that CUDA_VISIBLE_DEVICES names by index or by the start of a UUID.

    A part of a GPU (MIG-…) counts as the GPU that it belongs to, which its name does not say: then all are
    returned.
    """
    rows = [tuple(map(str.strip, line.split(",", 5))) for line in listing.splitlines()]
    found = [row for row in rows if len(row) == 6]
    if visible is not None and "MIG-" not in visible:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        found = [row for row in found if any(_names(name, row[0], row[1]) for name in names)]
    return tuple(Gpu(row[5], row[2], row[3], row[4]) for row in found)


def _names(name: str, index: str, uuid: str) -> bool:
    return name == index or (name.startswith("GPU-") and uuid.startswith(name))
