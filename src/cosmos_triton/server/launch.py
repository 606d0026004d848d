"""Start, watch and stop a tritonserver over the model repository.

The server comes from the container it runs in (`/opt/tritonserver`) or, where there is no Docker,
from the nvidia-pytriton wheel, which carries a real tritonserver with the Python backend. Two facts
shape what follows: the Python stub runs the first `python3` on PATH, and it needs libpython and the
wheel's CUDA runtime on LD_LIBRARY_PATH, without which it hangs instead of failing.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.pipeline import DEFAULT, ENSEMBLES, PROFILES, loaded_stages
from cosmos_triton.serving.settings import CHECKPOINT_VARIABLE

CONTAINER_SERVER = Path("/opt/tritonserver/bin/tritonserver")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class ServerSettings:
    """How to run one tritonserver.

    Args:
        model_repository: the folder of models.
        checkpoint_dir: the folder of checkpoints, handed to every stage.
        profile: one of `PROFILES`.
        ensembles: public ensembles to serve; their stages are loaded with them.
        base_model, video2world_model: which model of its kind, where the folder holds several.
        host: address of all three endpoints.
        http_port, grpc_port, metrics_port: their ports.
        exit_timeout_s: how long a stopping server waits for requests that run.
        extra: further tritonserver arguments, as they stand.
    """

    model_repository: Path
    checkpoint_dir: Path
    profile: str = DEFAULT
    ensembles: tuple[str, ...] = tuple(ENSEMBLES)
    base_model: str = ""
    video2world_model: str = ""
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    exit_timeout_s: int = 300
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.model_repository / "cosmos_base" / "config.pbtxt").is_file():
            raise ConfigurationError(f"{self.model_repository} is not the model repository")
        if not self.checkpoint_dir.is_dir():
            raise ConfigurationError(f"the checkpoint folder {self.checkpoint_dir} does not exist")
        if self.profile not in PROFILES:
            raise ConfigurationError(f"profile {self.profile!r} is none of {', '.join(PROFILES)}")
        for ensemble in self.ensembles:
            if ensemble not in ENSEMBLES:
                raise ConfigurationError(f"ensemble {ensemble!r} is none of {', '.join(ENSEMBLES)}")

    @property
    def models(self) -> list[str]:
        """The stages of all chosen ensembles, then the ensembles."""
        stages = loaded_stages(self.ensembles, self.profile)
        return [*(stage.name for stage in stages), *self.ensembles]


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine."""

    binary: Path
    library_path: str
    backends: Path | None  # the Python backend's parts, where they must be put together first
    stub: Path | None


def find_installation() -> Installation:
    """The container's tritonserver, or the one in the nvidia-pytriton wheel.

    Raises:
        ConfigurationError: there is neither.
    """
    if CONTAINER_SERVER.is_file():
        return Installation(CONTAINER_SERVER, os.environ.get("LD_LIBRARY_PATH", ""), None, None)
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "no tritonserver here: run inside the Triton container, or pip install 'cosmos-triton[local]'"
        )
    package = Path(spec.origin).parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ConfigurationError(f"the nvidia-pytriton wheel has no stub for Python {version}")
    libraries = [
        package.parent / "nvidia_pytriton.libs",
        Path(sysconfig.get_config_var("LIBDIR")),
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    return Installation(
        binary=package / "tritonserver" / "bin" / "tritonserver",
        library_path=":".join(str(entry) for entry in libraries if str(entry)),
        backends=package / "tritonserver" / "backends" / "python",
        stub=stub,
    )


def assemble_backends(installation: Installation, directory: Path) -> Path:
    """Put the Python backend and the stub of this Python version into one folder, as Triton wants it."""
    if installation.backends is None or installation.stub is None:
        return CONTAINER_SERVER.parent.parent / "backends"
    python = directory / "python"
    python.mkdir(parents=True, exist_ok=True)
    parts = ("libtriton_python.so", "triton_python_backend_utils.py")
    for source in (*(installation.backends / name for name in parts), installation.stub):
        with tempfile.NamedTemporaryFile(dir=python, delete=False) as fresh:
            shutil.copy(source, fresh.name)
        os.replace(fresh.name, python / source.name)  # another server may be running from the old file
    return directory


def command(settings: ServerSettings, installation: Installation, backends: Path) -> list[str]:
    """The tritonserver command line."""
    arguments = [
        str(installation.binary),
        f"--model-repository={settings.model_repository}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in settings.models),
        "--disable-auto-complete-config",
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        f"--exit-timeout-secs={settings.exit_timeout_s}",
    ]
    if settings.profile != DEFAULT:
        arguments.append(f"--model-config-name={settings.profile}")
    return arguments + list(settings.extra)


def environment(settings: ServerSettings, installation: Installation) -> dict[str, str]:
    """This process's environment with the interpreter, libraries and checkpoints the stages need."""
    chosen = {
        "COSMOS_AR_SAMPLER_BASE_MODEL": settings.base_model,
        "COSMOS_AR_SAMPLER_VIDEO2WORLD_MODEL": settings.video2world_model,
    }
    return {
        **os.environ,
        **{variable: model for variable, model in chosen.items() if model},
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": installation.library_path,
        CHECKPOINT_VARIABLE: str(settings.checkpoint_dir.resolve()),
    }


class Server:
    """A running tritonserver in a process group of its own."""

    def __init__(self, settings: ServerSettings, process: "subprocess.Popen[bytes]") -> None:
        self.settings = settings
        self.process = process

    @property
    def grpc_url(self) -> str:
        """host:port for gRPC clients."""
        return f"{self.settings.host}:{self.settings.grpc_port}"

    @property
    def http_url(self) -> str:
        """host:port for HTTP clients."""
        return f"{self.settings.host}:{self.settings.http_port}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus endpoint."""
        return f"http://{self.settings.host}:{self.settings.metrics_port}/metrics"

    def ready(self) -> bool:
        """Whether the server says that all its models are ready."""
        try:
            with urllib.request.urlopen(f"http://{self.http_url}/v2/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self, timeout_s: float) -> None:
        """Block until ready.

        Raises:
            ConfigurationError: the server ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if self.process.poll() is not None:
                raise ConfigurationError(
                    f"tritonserver ended with code {self.process.returncode}; see its log"
                )
            if time.monotonic() > deadline:
                raise ConfigurationError(f"tritonserver was not ready after {timeout_s:g} s; see its log")
            time.sleep(0.1)

    def stop(self, timeout_s: float = 20.0) -> int:
        """End the server and everything it started; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


@contextmanager
def serving(
    settings: ServerSettings, log: IO[bytes] | None = None, ready_timeout_s: float = 300.0
) -> Iterator[Server]:
    """A tritonserver that is ready, and gone afterwards with all its processes and shared memory.

    Args:
        settings: what to serve and where.
        log: where the server's output goes; this process's stderr if None.
        ready_timeout_s: how long loading may take.
    """
    installation = find_installation()
    regions_before = _shared_memory_regions()
    with tempfile.TemporaryDirectory(prefix="cosmos-triton-") as scratch:
        backends = assemble_backends(installation, Path(scratch) / "backends")
        process = subprocess.Popen(
            command(settings, installation, backends),
            env=environment(settings, installation),
            stdout=log,
            stderr=subprocess.STDOUT if log is not None else None,
            start_new_session=True,
        )
        server = Server(settings, process)
        try:
            server.wait_until_ready(ready_timeout_s)
            yield server
        finally:
            server.stop()
            _remove_orphaned(regions_before)


def _shared_memory_regions() -> set[Path]:
    return set(SHARED_MEMORY.glob("triton_python_backend_shm_region_*"))


def _remove_orphaned(known: set[Path]) -> None:
    """Remove regions that appeared since and that no process maps (a killed server leaves them)."""
    mapped = {
        line.split()[-1]
        for maps in Path("/proc").glob("[0-9]*/maps")
        for line in _lines(maps)
        if "triton_python_backend_shm_region_" in line
    }
    for region in _shared_memory_regions() - known:
        if str(region) not in mapped:
            region.unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # the process ended meanwhile, or is not ours
        return []
