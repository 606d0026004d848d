"""`cosmos-triton serve` as a process: a supervisor, its front and a real tritonserver."""

import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cosmos_triton.server import loopback
from cosmos_triton.server.launch import free_ports

READY_S = 240.0


@dataclass
class Supervised:
    """A server that runs; ports of its doors."""

    process: "subprocess.Popen[bytes]"
    http: int
    grpc: int
    metrics: int
    health: int
    log: Path

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.grpc}"

    def readiness(self) -> str:
        """What /readyz says; empty where nobody answers."""
        try:
            return loopback.read(f"http://127.0.0.1:{self.health}/readyz", 2).decode().strip()
        except urllib.error.HTTPError as error:
            return error.read().decode().strip()
        except OSError:
            return ""

    def until(self, readiness: str, seconds: float) -> float:
        """Wait for a readiness; returns the seconds it took."""
        began = time.monotonic()
        while self.readiness() != readiness:
            assert time.monotonic() - began < seconds, (
                f"{self.readiness()!r}, not {readiness!r}: {self.log_end()}"
            )
            assert self.process.poll() is None or readiness == "", self.log_end()
            time.sleep(0.05)
        return time.monotonic() - began

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        text = loopback.read(f"http://127.0.0.1:{self.metrics}/metrics", 5).decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def stages(self, name: str) -> list[int]:
        """Processes of a stage."""
        (folder,) = Path("/dev/shm").glob(f"cosmos-triton-alive-{self.process.pid}-*")
        return [int(path.name) for path in (folder / name).iterdir() if path.name.isdigit()]

    def descendants(self) -> list[int]:
        """Processes of the server, tritonserver and stages included."""
        found, left = list[int](), [self.process.pid]
        while left:
            pid = left.pop()
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids = [int(child) for child in children.read_text().split()]
                found += pids
                left += pids
        return found

    def log_end(self) -> str:
        return self.log.read_text()[-3000:]


@contextmanager
def supervised(checkpoints: Path, folder: Path, *arguments: str) -> Iterator[Supervised]:
    """A server of one ensemble unless the arguments say otherwise, ready; gone afterwards."""
    ports = dict(zip(("http", "grpc", "metrics", "health"), free_ports(4), strict=True))
    log = folder / "serve.log"
    command = [
        sys.executable,
        "-m",
        "cosmos_triton",
        "serve",
        f"--checkpoint-dir={checkpoints}",
        "--profile=cpu",
    ]
    command += [f"--{name}-port={port}" for name, port in ports.items()]
    command += arguments or ["--ensemble=cosmos_base_fast"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    server = Supervised(process, **ports, log=log)
    try:
        server.until("ready", READY_S)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
