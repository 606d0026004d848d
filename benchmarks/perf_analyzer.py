"""NVIDIA's perf_analyzer: where it is, how it is called, what it answers.

Its default windows of 5 s cannot hold one video, so every run asks for a number of requests.
"""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BINARY_VARIABLE = "PERF_ANALYZER"
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_COLUMNS = {
    "mean_s": "Avg latency",
    "p50_s": "p50 latency",
    "p90_s": "p90 latency",
    "p95_s": "p95 latency",
    "p99_s": "p99 latency",
}
_MICRO = 1e-6


class PerfAnalyzerError(Exception):
    """perf_analyzer is missing, or failed."""


@dataclass(frozen=True)
class Load:
    """One run: `requests` videos of `model`, `concurrency` of them in flight at any time."""

    model: str
    url: str
    inputs: Path  # its --input-data
    concurrency: int
    requests: int

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.requests < self.concurrency:
            raise ValueError(f"{self.requests} requests cannot keep {self.concurrency} in flight")


@dataclass(frozen=True)
class Composing:
    """Mean seconds that one stage's requests spent, as Triton counts them.

    Triton does not see inside a stage that answers late (ar_sampler): its compute is then next to nothing.
    """

    queue_s: float
    compute_s: float


@dataclass(frozen=True)
class Answer:
    """What one run measured, in seconds of the client's clock."""

    concurrency: int
    requests: int
    videos_per_minute: float
    latency_s: Mapping[str, float]  # mean, p50, p90, p95, p99
    composing: Mapping[str, Composing]  # by stage


def find() -> Path:
    """The perf_analyzer to run: $PERF_ANALYZER, or one beside this Python, or one on PATH.

    Raises:
        PerfAnalyzerError: there is none.
    """
    named = os.environ.get(BINARY_VARIABLE)
    beside = Path(sys.executable).parent / "perf_analyzer"
    on_path = shutil.which("perf_analyzer")
    for candidate in (named, beside, on_path):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise PerfAnalyzerError(
        f"there is no perf_analyzer beside {sys.executable} or on PATH: run `make bench`, which installs it"
    )


def run(load: Load, folder: Path) -> Answer:
    """Drive the load; tables and the log stay in `folder`.

    Raises:
        PerfAnalyzerError: it failed, or left no table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "load.csv"
    with (folder / "perf_analyzer.log").open("w") as log:
        done = subprocess.run(
            command(load, find(), table.name),
            cwd=folder,  # a path in front of the table's name would hide the composing models' tables
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(folder),
        )
    if done.returncode or not table.is_file():
        lines = (folder / "perf_analyzer.log").read_text().strip().splitlines()
        reason = lines[-1] if lines else "it said nothing"
        raise PerfAnalyzerError(f"perf_analyzer ended with code {done.returncode}: {reason}")
    return parse(table, load)


def command(load: Load, binary: Path, table: str) -> list[str]:
    """Its command line; `table` is the CSV it writes into its working directory."""
    return [
        str(binary),
        *("-m", load.model, "-i", "grpc", "-u", load.url),
        *("--input-data", str(load.inputs.resolve())),
        *("--concurrency-range", str(load.concurrency), "--request-count", str(load.requests)),
        *("-f", table, "--verbose-csv"),
    ]


def environment(folder: Path) -> dict[str, str]:
    """Ours, with the libraries that the binary of tritonclient 2.51 wants under their plain names.

    They come with nvidia-pytriton, which is there wherever the server is; newer binaries need none.
    """
    links = folder / "lib"
    links.mkdir(parents=True, exist_ok=True)
    specification = importlib.util.find_spec("pytriton")
    if specification and specification.origin:
        bundled = Path(specification.origin).parents[1] / "nvidia_pytriton.libs"
        for name, pattern in _LIBRARIES.items():
            found = sorted(bundled.glob(pattern))
            if found and not (links / name).exists():
                (links / name).symlink_to(found[0])
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    return {**os.environ, "LD_LIBRARY_PATH": f"{inherited}:{links}" if inherited else str(links)}


def parse(table: Path, load: Load) -> Answer:
    """Read the CSV and, beside it, one for each composing model (`<model>_v1.load.csv`)."""
    row = _only_row(table)
    composing = {
        path.name.rsplit("_v", 1)[0]: _composing(_only_row(path))
        for path in sorted(table.parent.glob(f"*_v*.{table.name}"))
    }
    return Answer(
        concurrency=load.concurrency,
        requests=load.requests,
        videos_per_minute=round(60 * float(row["Inferences/Second"]), 4),
        latency_s={key: round(float(row[column]) * _MICRO, 4) for key, column in _COLUMNS.items()},
        composing=composing,
    )


def _only_row(path: Path) -> dict[str, str]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    if len(rows) != 1:
        raise PerfAnalyzerError(f"{path} has {len(rows)} rows instead of 1")
    return rows[0]


def _composing(row: Mapping[str, str]) -> Composing:
    compute = sum(float(row[f"Server Compute {part}"]) for part in ("Input", "Infer", "Output"))
    return Composing(
        queue_s=round(float(row["Server Queue"]) * _MICRO, 4), compute_s=round(compute * _MICRO, 4)
    )
