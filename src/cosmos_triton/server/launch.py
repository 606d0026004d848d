"""Start, watch and stop a tritonserver over the model repository.

The server runs as a child of this process, which copies its log on, reads in it how loading goes, hands on
signals, and clears up what a killed server leaves behind.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cosmos_triton import mapped
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.pipeline import DEFAULT, ENSEMBLES, PROFILES, loaded_stages
from cosmos_triton.sentences import telling
from cosmos_triton.server import loopback
from cosmos_triton.server.folders import interpreter_folder, plain, work_folder
from cosmos_triton.server.installation import Installation, assemble_backends, find_installation
from cosmos_triton.server.loading import Log, Stubs, problem
from cosmos_triton.serving import CHECKPOINT_VARIABLE, ignored_variables

SHARED_MEMORY = Path("/dev/shm")

_KEEPALIVE = (  # a call is silent for minutes while its video is made: clients may ask whether we live
    "--grpc-keepalive-time=60000",
    "--grpc-http2-min-recv-ping-interval-without-data=10000",
)
_GPU_POOLS = [  # frames of one video are 62 MiB; Triton's own pools hold four of them, or one
    "--pinned-memory-pool-byte-size=1073741824",
    "--cuda-memory-pool-byte-size=0:268435456",
]
_LOOK_S = 0.05  # a stub that fails at once lives about so long, and is known by name only while it lives


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
        exit_timeout_s: how long a stopping server waits for steps that run; see docs/operations.md.
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

    @classmethod
    def on_free_ports(cls, **fields: Any) -> "ServerSettings":
        """Settings of a short-lived server of our own, on ports that nobody listens on now."""
        http, grpc, metrics = free_ports(3)
        ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        return cls(**{"exit_timeout_s": 10, **ports, **fields})

    @property
    def address(self) -> str:
        """Where this machine itself reaches the server."""
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{here}]" if ":" in here else here

    @property
    def models(self) -> list[str]:
        """The stages of all chosen ensembles, then the ensembles."""
        stages = loaded_stages(self.ensembles, self.profile)
        return [*(stage.name for stage in stages), *self.ensembles]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def command(settings: ServerSettings, installation: Installation, work: Path) -> list[str]:
    """The tritonserver command line; `work` is where what it needs is put together."""
    arguments = [
        str(installation.binary),
        f"--model-repository={plain(settings.model_repository, work / 'links')}",
        f"--backend-directory={assemble_backends(installation, work)}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in settings.models),
        "--disable-auto-complete-config",
        "--log-format=ISO8601",
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        f"--exit-timeout-secs={settings.exit_timeout_s}",
        *_KEEPALIVE,
    ]
    if settings.profile != DEFAULT:
        arguments.append(f"--model-config-name={settings.profile}")
    if settings.profile != "cpu":
        arguments += _GPU_POOLS
    return arguments + list(settings.extra)


def environment(settings: ServerSettings, installation: Installation, work: Path) -> dict[str, str]:
    """This process's environment with the interpreter, libraries and checkpoints the stages need."""
    chosen = {
        "COSMOS_AR_SAMPLER_BASE_MODEL": settings.base_model,
        "COSMOS_AR_SAMPLER_VIDEO2WORLD_MODEL": settings.video2world_model,
    }
    return {
        **os.environ,
        **{variable: model for variable, model in chosen.items() if model},
        "PATH": f"{interpreter_folder(work)}:{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": installation.library_path,
        CHECKPOINT_VARIABLE: str(plain(settings.checkpoint_dir, work / "links")),
    }


class Server:
    """A tritonserver in a process group of its own, and what is known of it."""

    def __init__(
        self, settings: ServerSettings, process: "subprocess.Popen[bytes]", log: Log | None = None
    ) -> None:
        self.settings = settings
        self.process = process
        self.log = log
        self.stopping = False  # we were told to end it
        self._stubs = Stubs(process.pid)

    @property
    def grpc_url(self) -> str:
        """host:port for gRPC clients."""
        return f"{self.settings.address}:{self.settings.grpc_port}"

    @property
    def http_url(self) -> str:
        """host:port for HTTP clients."""
        return f"{self.settings.address}:{self.settings.http_port}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus endpoint."""
        return f"http://{self.settings.address}:{self.settings.metrics_port}/metrics"

    def ready(self) -> bool:
        """Whether the server says that all its models are ready."""
        try:
            loopback.read(f"http://{self.http_url}/v2/health/ready", timeout_s=2)
        except OSError:
            return False
        return True

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Block until ready.

        Raises:
            ConfigurationError: a stage could not be loaded, the server ended, or was not ready in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.ready():
            self._stubs.look()
            ended = self.process.poll() is not None
            if ended and self.log is not None:
                self.log.join()
            if found := self.log and problem(self.log, self._stubs):
                raise ConfigurationError(found)
            if ended:
                raise ConfigurationError(
                    f"tritonserver ended with code {self.process.returncode}; see its log"
                )
            if deadline is not None and time.monotonic() > deadline:
                raise ConfigurationError(
                    f"tritonserver was not ready after {timeout_s:g} s{self._loading()}; see its log"
                )
            time.sleep(_LOOK_S)

    def _loading(self) -> str:
        models = sorted(self.log.loading) if self.log else []
        return f", still loading {', '.join(models)}" if models else ""

    def send(self, signal_number: int) -> None:
        """Hand a signal on; the server is expected to end of it."""
        self.stopping = True
        with suppress(ProcessLookupError):
            self.process.send_signal(signal_number)

    def stop(self, timeout_s: float = 20.0) -> int:
        """End the server and everything it started; returns its exit code."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


@contextmanager
def started(
    settings: ServerSettings, log: IO[bytes] | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A tritonserver that loads its models, and is gone afterwards with its processes and shared memory.

    Args:
        settings: what to serve and where.
        log: where the server's output goes; this process's stderr if None.
        variables: further environment variables of the server.
    """
    installation, work = find_installation(), work_folder()
    regions_before = _shared_memory_regions()
    for warning in ignored_variables(os.environ, settings.profile).values():
        _say(warning)
    with ExitStack() as stack:
        sink = log if log is not None else stack.enter_context(_unbuffered_stderr())
        with telling(work):  # its disk may be full
            arguments = [*_ending_with_us(), *command(settings, installation, work)]
            told = {**environment(settings, installation, work), **(variables or {})}
        process = subprocess.Popen(
            arguments,
            env=told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        server = Server(settings, process, Log(process.stdout, sink))
        try:
            yield server
        except ConfigurationError:
            server.stop(timeout_s=2)  # a server that waits for a stage does not hear SIGTERM
            raise
        finally:
            server.stop()
            assert server.log is not None
            server.log.join()
            _remove_orphaned(regions_before)


def _unbuffered_stderr() -> IO[bytes]:
    """Without a buffer, which would fail once more when it is closed, if the log's disk is full."""
    return os.fdopen(os.dup(2), "wb", buffering=0)


@contextmanager
def serving(
    settings: ServerSettings, log: IO[bytes] | None = None, ready_timeout_s: float = 300.0
) -> Iterator[Server]:
    """A tritonserver that is ready; `ready_timeout_s` is how long loading may take. See `started`."""
    with started(settings, log) as server:
        server.wait_until_ready(ready_timeout_s)
        yield server


def _ending_with_us() -> list[str]:
    """What to put in front of a command so that it gets SIGTERM when this process dies."""
    setpriv = shutil.which("setpriv")  # of util-linux
    return [setpriv, "--pdeathsig=TERM", "--"] if setpriv else []


def _shared_memory_regions() -> set[Path]:
    return set(SHARED_MEMORY.glob("triton_python_backend_shm_region_*"))


def _remove_orphaned(known: set[Path]) -> None:
    """Remove regions that appeared since and that no process maps (a killed server leaves them)."""
    fresh = _shared_memory_regions() - known
    for region in fresh - mapped.mapped_by_any_process() if fresh else ():
        region.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
