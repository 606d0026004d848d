"""`cosmos-triton serve`, `prepare` and `up`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cosmos_triton.architectures import Kind
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.host import visible_gpus
from cosmos_triton.pipeline import DEFAULT, ENSEMBLES, PROFILES
from cosmos_triton.server import checks, loopback
from cosmos_triton.server.folders import work_folder
from cosmos_triton.server.installation import find_installation
from cosmos_triton.server.launch import ServerSettings
from cosmos_triton.server.prepare import BUILDING, prepare
from cosmos_triton.server.supervisor import SupervisorSettings, supervise

if TYPE_CHECKING:  # seconds of torch
    from cosmos_triton.checkpoints import CheckpointFolder

_REPOSITORY = Path(__file__).parents[3] / "model_repository"
_EXIT_CODES = (
    "Exit codes: 0 done, told to stop and every request answered; 1 refused, or requests were left, the last "
    "line on stderr says why; 2 wrong usage; 70 stages died too often."
)

# Frames of one video are 65 MB; the Python backend's pool would otherwise grow by 1 MB at a time.
_PRODUCTION = (
    "--backend-config=python,shm-default-byte-size=67108864",
    "--backend-config=python,shm-growth-byte-size=67108864",
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve`, `prepare`, `up` and `drain`."""
    serve_parser = subparsers.add_parser(
        "serve",
        help="run tritonserver over the model repository",
        description="Run tritonserver with the ensembles that the checkpoint folder can serve, after "
        "checking that it can. " + _EXIT_CODES,
        epilog="example: cosmos-triton serve --checkpoint-dir checkpoints/tiny --profile cpu",
    )
    _add_server(serve_parser)
    serve_parser.set_defaults(run=serve)

    prepare_parser = subparsers.add_parser(
        "prepare",
        help="check everything that a server needs, and build what is missing",
        description="Check what can fail cheaply (ports, folders, shared memory, GPU, guardrails, disk), "
        "then export the graphs or build the TensorRT plans that are missing. " + _EXIT_CODES,
    )
    _add_server(prepare_parser)
    _add_state(prepare_parser)
    prepare_parser.add_argument("--check", action="store_true", help="build nothing, only refuse")
    prepare_parser.set_defaults(run=prepare_only)

    up_parser = subparsers.add_parser(
        "up",
        help="prepare, then serve: what the container does",
        description="`prepare`, then `serve`. Every flag has an environment variable, see "
        "docs/configuration.md. " + _EXIT_CODES,
    )
    _add_server(up_parser)
    _add_state(up_parser)
    up_parser.set_defaults(run=up)

    drain_parser = subparsers.add_parser(
        "drain",
        help="let the server on this machine finish what it has, and take nothing new",
        description="Ask the server on this machine to refuse new requests, and wait until those inside are "
        "answered. It then serves nothing; end it with SIGTERM. Exit codes: 0 empty; 1 not in time, or no "
        "server answers.",
    )
    drain_parser.add_argument("--health-port", type=int, default=8003, help="default %(default)s")
    drain_parser.set_defaults(run=drain)


def add_folders(parser: argparse.ArgumentParser, variables: Mapping[str, str] = os.environ) -> None:
    """The two folders that every server reads; their defaults are the environment's, where it has any."""
    checkpoint_dir = variables.get("COSMOS_CHECKPOINT_DIR")
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        required=not checkpoint_dir,
        default=Path(checkpoint_dir) if checkpoint_dir else None,
        metavar="DIR",
        help="folder of checkpoints" + (" (default %(default)s)" if checkpoint_dir else ""),
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=Path(variables.get("COSMOS_MODEL_REPOSITORY", _REPOSITORY)),
        metavar="DIR",
        help="folder of Triton models (default %(default)s)",
    )


def _add_server(parser: argparse.ArgumentParser, variables: Mapping[str, str] = os.environ) -> None:
    add_folders(parser, variables)
    add = parser.add_argument
    add(
        "--profile",
        default=variables.get("COSMOS_PROFILE", DEFAULT),
        choices=PROFILES,
        help="what the networks run on: "
        + "; ".join(f"{profile.name}: {profile.runs}" for profile in PROFILES.values())
        + " (default %(default)s)",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="serve this autoregressive model (4B, 13B, or its directory's name), where the folder holds "
        "several of a kind; repeatable: one base and one Video2World model",
    )
    add(
        "--ensemble",
        action="append",
        choices=ENSEMBLES,
        help="serve only this one (repeatable); default: all that the checkpoints allow",
    )
    host = variables.get("COSMOS_HOST", "127.0.0.1")
    add("--host", default=host, help="address to listen on (default %(default)s)")
    add("--http-port", type=int, default=8000, help="default %(default)s")
    add("--grpc-port", type=int, default=8001, help="default %(default)s")
    add("--metrics-port", type=int, default=8002, help="default %(default)s")
    add("--health-port", type=int, default=8003, help="/livez, /readyz, /drain (default %(default)s)")
    add(
        "--drain-s",
        type=float,
        default=1800.0,
        help="how long a server that is told to stop works on the videos inside (default %(default)s)",
    )
    add(
        "--exit-timeout-s",
        type=int,
        default=30,
        help="how long it then waits for tritonserver to end (default %(default)s)",
    )
    add(
        "--max-requests",
        type=int,
        default=40,
        help="requests in the server at once; a further one is refused at once (default %(default)s)",
    )
    add(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help="holds the key that opens Triton's administration to whoever sends it as cosmos-admin-key; "
        "default: a key that nobody knows",
    )
    add("extra", nargs="*", help="further tritonserver arguments, after --")


def _add_state(parser: argparse.ArgumentParser, variables: Mapping[str, str] = os.environ) -> None:
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(variables["COSMOS_STATE_DIR"]) if variables.get("COSMOS_STATE_DIR") else None,
        metavar="DIR",
        help="where plans are kept (default: %(default)s, or the user's cache folder)",
    )
    parser.add_argument(
        "--build",
        default=variables.get("COSMOS_BUILD_PLANS", "missing"),
        choices=BUILDING,
        help="missing: build what is missing or does not fit; never: refuse (default %(default)s)",
    )


def serve(arguments: argparse.Namespace) -> int:
    """Run tritonserver, after checking what the checkpoints can serve."""
    settings, _, video = checked(arguments)
    checks.check_networks(settings, video)
    _say_served(settings)
    return supervise(settings, _supervision(arguments))


def prepare_only(arguments: argparse.Namespace) -> int:
    """Check, and build what is missing."""
    settings = _prepared(arguments, "never" if arguments.check else arguments.build)
    _say(f"ready to serve {', '.join(settings.ensembles)} from {settings.model_repository}")
    return 0


def up(arguments: argparse.Namespace) -> int:
    """Prepare, then serve."""
    arguments.extra = [*_PRODUCTION, *arguments.extra]
    settings = _prepared(arguments, arguments.build)
    _say_served(settings)
    return supervise(settings, _supervision(arguments))


def drain(arguments: argparse.Namespace) -> int:
    """Ask the server on this machine to finish."""
    url = f"http://127.0.0.1:{arguments.health_port}/drain"
    try:
        answer = loopback.post(url)
    except OSError as error:
        raise ConfigurationError(f"no server is drained at {url}: {error}") from error
    _say(answer.strip())
    return 0


def _supervision(arguments: argparse.Namespace) -> SupervisorSettings:
    key = ""
    if arguments.admin_key_file:
        try:
            key = arguments.admin_key_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"--admin-key-file {arguments.admin_key_file}: {error}") from error
        if not key:
            raise ConfigurationError(f"--admin-key-file {arguments.admin_key_file} is empty")
    return SupervisorSettings(
        health_port=arguments.health_port,
        admin_key=key,
        most_requests=arguments.max_requests,
        drain_s=arguments.drain_s,
    )


def _prepared(arguments: argparse.Namespace, building: str) -> ServerSettings:
    if building not in BUILDING:  # argparse does not look at defaults
        raise ConfigurationError(f"COSMOS_BUILD_PLANS={building!r} is none of {', '.join(BUILDING)}")
    state = arguments.state_dir or work_folder() / "state"
    if arguments.profile == DEFAULT and building == "missing":
        checks.check_writable(state)
    settings, folder, video = checked(arguments, graphs_are_built=building == "missing")
    return prepare(settings, state, folder, video, building)


def checked(
    arguments: argparse.Namespace, graphs_are_built: bool = False
) -> tuple[ServerSettings, "CheckpointFolder", VideoGeometry]:
    """What is to be served, after every check that is cheap but that of plans.

    Args:
        arguments: the command line.
        graphs_are_built: a missing graph is no reason to leave an ensemble out.

    Returns:
        The settings; the checkpoint folder, which is looked at once; the size of video that its models make.
    """
    wanted = ServerSettings(
        model_repository=arguments.model_repository,
        checkpoint_dir=arguments.checkpoint_dir,
        profile=arguments.profile,
        host=arguments.host,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        exit_timeout_s=arguments.exit_timeout_s,
        extra=tuple(arguments.extra),
    )
    checks.check_ports(wanted, arguments.health_port)
    if wanted.profile != "cpu":
        checks.check_gpu(wanted.profile, visible_gpus())
    find_installation()
    work_folder()
    from cosmos_triton.checkpoints import CheckpointFolder, geometry

    folder = CheckpointFolder(wanted.checkpoint_dir)
    served, left_out = checks.ensembles_to_serve(wanted, folder, arguments.ensemble or (), graphs_are_built)
    for ensemble, reason in left_out.items():
        _say(f"not serving {ensemble}: {reason}")
    models = chosen_models(folder, arguments.model)
    settings = replace(
        wanted,
        ensembles=tuple(served),
        base_model=models.get(Kind.BASE, ""),
        video2world_model=models.get(Kind.VIDEO2WORLD, ""),
    )
    video = geometry(folder)
    checks.check_shared_memory(_shared_memory_gib(os.environ, video))
    checks.check_guardrails(settings)
    return settings, folder, video


def chosen_models(folder: "CheckpointFolder", names: Sequence[str]) -> dict[Kind, str]:
    """Names of models by kind.

    Raises:
        CheckpointError: the folder has no such model.
        ConfigurationError: two of one kind are named.
    """
    chosen: dict[Kind, str] = {}
    for name in names:
        kind = folder.autoregressive(name).architecture.kind
        if kind in chosen:
            raise ConfigurationError(f"--model {chosen[kind]} and --model {name} are of one kind")
        chosen[kind] = name
    return chosen


def _shared_memory_gib(variables: Mapping[str, str], video: VideoGeometry) -> float:
    """What COSMOS_SHM_GIB asks for, or what videos of this size need."""
    size = variables.get("COSMOS_SHM_GIB")
    if not size:
        return checks.shared_memory_needed_gib(video)
    try:
        return float(size)
    except ValueError:
        raise ConfigurationError(f"COSMOS_SHM_GIB={size!r} is not a number") from None


def _say_served(settings: ServerSettings) -> None:
    _say(f"starting tritonserver for {', '.join(settings.ensembles)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
