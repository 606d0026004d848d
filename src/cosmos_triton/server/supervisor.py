"""`cosmos-triton up` stays: the parent of tritonserver, its doors, and its nurse.

    loading     tritonserver loads its models; the doors are closed
    ready       the doors are open
    recovering  a stage has died and is loaded again; requests that need others go on
    draining    nothing is admitted; what is inside is finished
    ended       tritonserver is gone

It listens for health on a port of its own:

    /livez      200 while there is hope: the container need not be restarted
    /readyz     200 in state ready, else 503 with the reason
    /drain      POST, from this machine: refuse new requests and answer when all others are done

A third death within `deaths_window_s` beyond `most_deaths` ends the server with exit code 70, so that what
started it can start it anew.
"""

import asyncio
import ctypes
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.server import grpc_front, http_front
from cosmos_triton.server.admission import Admission, first_of
from cosmos_triton.server.launch import Server, ServerSettings, free_ports, started
from cosmos_triton.server.stages_alive import StageProcess, Watch, stage_processes
from cosmos_triton.server.upstream import GRPC_KEY_HEADER, GRPC_PREFIX, HTTP_KEY_HEADER, Upstream
from cosmos_triton.serving import FOLDER_VARIABLE

_log = logging.getLogger(__name__)

GAVE_UP = 70  # exit code: stages died too often
_ROUND_S = 0.25
_SUBREAPER = 36  # prctl(2): PR_SET_CHILD_SUBREAPER
_RESTRICTED = "inference,model-repository,model-config,shared-memory,statistics,trace,logging"
_GRACE_S = 1.0
_ALIVE = "cosmos-triton-alive-"
_AFTER_DEATHS_S = 10.0


@dataclass(frozen=True)
class SupervisorSettings:
    """How a server is looked after.

    Args:
        health_port: of /livez, /readyz and /drain; 0 takes any free one.
        admin_key: opens Triton's administration to whoever sends it; empty: one that nobody knows.
        most_requests: in the server at once; a further one is refused.
        max_bytes: of one request, unpacked.
        drain_s: how long a stopping server works on what it has.
        hangs_after_s: silence of a stage that counts as hanging.
        most_deaths: of stages within `deaths_window_s`; one more ends the server.
        ready_s: how long loading may take.
    """

    health_port: int = 8003
    admin_key: str = ""
    most_requests: int = 40
    max_bytes: int = 272 * 1024 * 1024
    drain_s: float = 1800.0
    hangs_after_s: float = 6.0
    most_deaths: int = 3
    deaths_window_s: float = 600.0
    ready_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("most_requests", "max_bytes", "hangs_after_s", "deaths_window_s", "ready_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} {getattr(self, name)} is not above 0")
        for name in ("drain_s", "most_deaths"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} {getattr(self, name)} is below 0")


@dataclass
class Metrics:
    """What the supervisor counts; shown on the metrics port before Triton's own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.deaths = Counter(
            "cosmos_stage_deaths",
            "Stage processes that died or were ended",
            ["stage"],
            registry=self.registry,
        )
        self.recoveries = Counter(
            "cosmos_stage_recoveries", "Stages loaded again after a death", ["stage"], registry=self.registry
        )
        self.lost = Counter(
            "cosmos_requests_lost",
            "Requests that a stage's death took with it",
            ["stage"],
            registry=self.registry,
        )
        self.dead = Gauge("cosmos_stages_dead", "Stages being loaded again now", registry=self.registry)
        self.ready = Gauge("cosmos_ready", "1 in state ready, else 0", registry=self.registry)


class Supervisor:
    """Looks after one tritonserver that was just started; `run` returns the exit code of the whole.

    Args:
        server: the process, on internal ports.
        public: what the doors are: host, ports, ensembles.
        settings: how it is looked after.
        alive: the folder where its stages sign in.
        key: opens what it restricts.
    """

    def __init__(
        self, server: Server, public: ServerSettings, settings: SupervisorSettings, alive: Path, key: str
    ) -> None:
        self._server = server
        self._public = public
        self._settings = settings
        self._alive = alive
        self._key = key
        self.state = "loading"
        self._recovering: dict[str, asyncio.Task[None]] = {}
        self._deaths: deque[float] = deque()
        self._stop = asyncio.Event()
        self._gave_up = ""
        self.metrics = Metrics()
        self.admission = Admission(settings.most_requests, self.metrics.registry)
        self.metrics.ready.set_function(lambda: float(self.ready))
        self.metrics.dead.set_function(lambda: len(self._recovering))

    @property
    def ready(self) -> bool:
        """Whether requests are welcome and every stage lives."""
        return self.state == "ready" and not self._recovering

    @property
    def reason(self) -> str:
        """Why it is not ready, in one line; `ready` if it is."""
        if self._recovering and self.state == "ready":
            return f"recovering {', '.join(sorted(self._recovering))}"
        return self._gave_up or self.state

    async def run(self) -> int:
        """Serve until a signal or the end of tritonserver, then stop.

        Returns:
            0: told to stop, and every request was answered; 70: stages died too often; else 1.

        Raises:
            ConfigurationError: a stage could not be loaded, or a port is taken.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        internal = self._server.settings
        upstream = Upstream(internal.grpc_port, internal.http_port, internal.metrics_port, self._key)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(upstream.close)
            try:
                return await self._serve(upstream, stack)
            except OSError as error:
                raise ConfigurationError(f"cannot listen: {error.strerror or error}") from error
            finally:  # whatever went wrong: threads wait for its end
                await loop.run_in_executor(None, self._server.stop, _AFTER_DEATHS_S)

    async def _serve(self, upstream: Upstream, stack: AsyncExitStack) -> int:
        loop = asyncio.get_running_loop()
        await self._open_health(upstream, stack)
        ended = loop.run_in_executor(None, self._server.process.wait)
        stop = asyncio.ensure_future(self._stop.wait())
        loaded = loop.run_in_executor(None, self._server.wait_until_ready, self._settings.ready_s)
        await first_of(stop, loaded)
        if stop.done():
            self._server.send(signal.SIGTERM)
            with suppress(ConfigurationError):
                await loaded
            return await self._close(ended, drained=True)
        await loaded
        await self._open_doors(upstream, stack)
        self.state = "ready"
        _say(
            f"ready: {', '.join(self._public.ensembles)} on gRPC {self._public.host}:{self._public.grpc_port}"
        )
        nurse = asyncio.ensure_future(self._nurse(upstream))
        await first_of(ended, stop, nurse)
        drained = stop.done() and await self._drain(self._settings.drain_s)
        nurse.cancel()
        return await self._close(ended, drained=drained)

    async def _open_health(self, upstream: Upstream, stack: AsyncExitStack) -> None:
        health, metrics = web.Application(), web.Application()
        health.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.post("/drain", self._drain_asked),
            ]
        )

        async def show(request: web.Request) -> web.Response:
            text = generate_latest(self.metrics.registry) + await upstream.metrics()
            return web.Response(
                body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            )

        metrics.add_routes([web.get("/metrics", show)])
        host = self._public.host
        for application, port in ((health, self._settings.health_port), (metrics, self._public.metrics_port)):
            runner = await http_front.serve(application, host, port)
            stack.push_async_callback(runner.cleanup)

    async def _open_doors(self, upstream: Upstream, stack: AsyncExitStack) -> None:
        public, settings = self._public, self._settings
        key = settings.admin_key or secrets.token_hex(32)
        terms = (upstream, self.admission, public.ensembles, key, lambda: self.ready)
        calls = grpc_front.GrpcFront(*terms)
        server = await grpc_front.start(calls, f"{public.host}:{public.grpc_port}", settings.max_bytes)
        stack.push_async_callback(server.stop, _GRACE_S)
        pages = http_front.HttpFront(*terms, settings.max_bytes)
        runner = await http_front.serve(pages.application, public.host, public.http_port)
        stack.push_async_callback(runner.cleanup)

    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self._gave_up else 200, text=self.reason + "\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503, text=self.reason + "\n")

    async def _drain_asked(self, request: web.Request) -> web.Response:
        if request.remote not in ("127.0.0.1", "::1"):
            return web.Response(status=403, text="drain is asked for on the machine itself\n")
        empty = await self._drain(self._settings.drain_s)
        return web.Response(status=200 if empty else 504, text=f"{len(self.admission)} requests left\n")

    async def _drain(self, seconds: float) -> bool:
        """Admit nobody, wait for those inside; whether all have left in time."""
        self.state = "draining"
        self.admission.draining = True
        _log.warning("draining: %d requests inside", len(self.admission))
        return await self.admission.empty(seconds)

    async def _nurse(self, upstream: Upstream) -> None:
        """Find the dead and bring them back; returns when there were too many."""
        watch = Watch(self._alive, self._settings.hangs_after_s)
        while True:
            for dead in watch.round():
                self._note_death(dead)
                if self._too_many_deaths():
                    self._gave_up = f"gave up: {len(self._deaths)} stage processes died"
                    _log.error("%s within %g s", self._gave_up, self._settings.deaths_window_s)
                    return
                if dead.stage not in self._recovering:
                    task = asyncio.ensure_future(self._recover(dead.stage, upstream))
                    self._recovering[dead.stage] = task
            _reap(self._server.process.pid)
            await asyncio.sleep(_ROUND_S)

    def _note_death(self, dead: StageProcess) -> None:
        self._deaths.append(time.monotonic())
        self.metrics.deaths.labels(dead.stage).inc()
        lost = self.admission.lose(dead.holds, f"{dead.stage} died with the request inside; send it again")
        self.metrics.lost.labels(dead.stage).inc(lost)
        _log.error("%s (process %d) died; %d requests are lost; loading it again", dead.stage, dead.pid, lost)
        dead.forget()

    def _too_many_deaths(self) -> bool:
        while self._deaths and time.monotonic() - self._deaths[0] > self._settings.deaths_window_s:
            self._deaths.popleft()
        return len(self._deaths) > self._settings.most_deaths

    async def _recover(self, stage: str, upstream: Upstream) -> None:
        began = time.monotonic()
        try:
            for process in stage_processes(self._alive):  # its other instances end too: the model is unloaded
                if process.stage == stage:
                    process.forget()
            complaint = await upstream.reload(stage)
            if complaint:
                self._gave_up = f"{stage} could not be loaded again: {complaint}"
                _log.error("%s", self._gave_up)
                self._stop.set()
                return
            while not await upstream.ready():
                await asyncio.sleep(_ROUND_S)
            self.metrics.recoveries.labels(stage).inc()
            _log.warning("%s is back after %.1f s", stage, time.monotonic() - began)
        finally:
            del self._recovering[stage]

    async def _close(self, ended: "asyncio.Future[int]", *, drained: bool) -> int:
        """End tritonserver; the exit code of the whole."""
        by_itself = ended.done()
        self.state = "ended"
        # Nothing is inside. After a stage's death Triton would wait for it the whole exit timeout.
        patience = _AFTER_DEATHS_S if self._deaths else float(self._public.exit_timeout_s)
        await asyncio.get_running_loop().run_in_executor(None, self._server.stop, patience)
        code = await ended
        if self._gave_up:
            return GAVE_UP
        if by_itself:
            _say(f"tritonserver ended by itself with code {code}")
            return 1
        return 0 if drained else 1


def supervise(public: ServerSettings, settings: SupervisorSettings) -> int:
    """Start tritonserver on the loopback, look after it, and stop it; returns the exit code.

    Args:
        public: what is served, and where the doors are.
        settings: how it is looked after.

    Raises:
        ConfigurationError: it did not become ready.
    """
    _prctl(_SUBREAPER, 1)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # one line a series is enough
    _remove_stale_folders()
    key = secrets.token_hex(16)
    http, grpc, metrics = free_ports(3)
    closed = (
        f"--grpc-restricted-protocol={_RESTRICTED}:{GRPC_KEY_HEADER.removeprefix(GRPC_PREFIX)}={key}",
        f"--http-restricted-api={_RESTRICTED}:{HTTP_KEY_HEADER}={key}",
    )
    internal = replace(
        public,
        host="127.0.0.1",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        extra=(*closed, *public.extra),
    )
    with tempfile.TemporaryDirectory(prefix=f"{_ALIVE}{os.getpid()}-", dir=_memory_folder()) as alive:
        try:
            with started(internal, variables={FOLDER_VARIABLE: alive}) as server:
                return asyncio.run(Supervisor(server, public, settings, Path(alive), key).run())
        finally:
            _end_descendants()


def _memory_folder() -> str | None:
    """Where heartbeats cost no disk; None: where temporary files are."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _remove_stale_folders() -> None:
    """Remove what supervisors that were killed left behind."""
    for folder in Path(_memory_folder() or tempfile.gettempdir()).glob(f"{_ALIVE}*-*"):
        pid = folder.name.removeprefix(_ALIVE).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _reap(known: int) -> None:
    """Take note of orphans that ended, `known` excepted: they are ours, because this process adopts them."""
    for child in set(_children(os.getpid())) - {known}:
        with suppress(OSError, ValueError):
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                os.waitpid(child, os.WNOHANG)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _end_descendants() -> None:
    """Kill what tritonserver left behind; it has been handed to this process."""
    for _ in range(20):
        left = _children(os.getpid())
        if not left:
            return
        for child in left:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)


def _say(text: str) -> None:
    print(f"cosmos-triton: {text}", file=sys.stderr, flush=True)
