"""`cosmos-triton serve`."""

import argparse
import os
import socket
import sys
from pathlib import Path

from cosmos_triton.architectures import Kind
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.pipeline import DEFAULT, ENSEMBLES, PROFILES, loaded_networks
from cosmos_triton.runtimes.plans import check_plans
from cosmos_triton.server.launch import (
    ServerSettings,
    assemble_backends,
    command,
    environment,
    find_installation,
)

_REPOSITORY = Path(__file__).parents[3] / "model_repository"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve`."""
    _register_serve(subparsers)


def _register_serve(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "serve",
        help="run tritonserver over the model repository",
        description="Run tritonserver with the ensembles that the checkpoint folder can serve.",
        epilog="example: cosmos-triton serve --checkpoint-dir checkpoints/tiny --profile cpu",
    )
    add_folders(parser)
    parser.add_argument(
        "--profile",
        default=DEFAULT,
        choices=PROFILES,
        help="what the networks run on: "
        + "; ".join(f"{profile.name}: {profile.runs}" for profile in PROFILES.values()),
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="serve this autoregressive model (4B, 13B, or its directory's name), where the folder holds "
        "several of a kind; repeatable: one base and one Video2World model",
    )
    parser.add_argument(
        "--ensemble",
        action="append",
        choices=ENSEMBLES,
        help="serve only this one (repeatable); default: all that the checkpoints allow",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--http-port", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--grpc-port", type=int, default=8001, help="default %(default)s")
    parser.add_argument("--metrics-port", type=int, default=8002, help="default %(default)s")
    parser.add_argument(
        "--exit-timeout-s", type=int, default=300, help="how long a stopping server waits for running videos"
    )
    parser.add_argument("extra", nargs="*", help="further tritonserver arguments, after --")
    parser.set_defaults(run=serve)


def add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint-dir", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=_REPOSITORY,
        help="folder of Triton models (default %(default)s)",
    )


def serve(arguments: argparse.Namespace) -> int:
    """Become tritonserver, after checking what the checkpoints can serve."""
    chosen = chosen_models(arguments.checkpoint_dir, arguments.model)
    settings = ServerSettings(
        model_repository=arguments.model_repository,
        checkpoint_dir=arguments.checkpoint_dir,
        profile=arguments.profile,
        ensembles=tuple(arguments.ensemble or servable_ensembles(arguments.checkpoint_dir)),
        base_model=chosen.get(Kind.BASE, ""),
        video2world_model=chosen.get(Kind.VIDEO2WORLD, ""),
        host=arguments.host,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        exit_timeout_s=arguments.exit_timeout_s,
        extra=tuple(arguments.extra),
    )
    if settings.profile == DEFAULT:
        from cosmos_triton.checkpoints.catalog import geometry
        from cosmos_triton.checkpoints.folder import CheckpointFolder  # seconds of torch

        plans = loaded_networks(settings.ensembles)
        video = geometry(CheckpointFolder(settings.checkpoint_dir))
        check_plans(settings.model_repository, settings.checkpoint_dir, plans, geometry=video)
    installation = find_installation()
    backends = assemble_backends(installation, _cache_folder() / f"backends-{sys.version_info.minor}")
    line = command(settings, installation, backends)
    print(
        f"serving {', '.join(settings.ensembles)} on gRPC {settings.host}:{settings.grpc_port}",
        file=sys.stderr,
    )
    os.execve(line[0], line, environment(settings, installation))


def chosen_models(checkpoint_dir: Path, names: list[str]) -> dict[Kind, str]:
    """Names of models by kind.

    Raises:
        CheckpointError: the folder has no such model.
        ConfigurationError: two of one kind are named.
    """
    from cosmos_triton.checkpoints.folder import CheckpointFolder

    folder, chosen = CheckpointFolder(checkpoint_dir), dict[Kind, str]()
    for name in names:
        kind = folder.autoregressive(name).architecture.kind
        if kind in chosen:
            raise ConfigurationError(f"--model {chosen[kind]} and --model {name} are of one kind")
        chosen[kind] = name
    return chosen


def servable_ensembles(checkpoint_dir: Path) -> list[str]:
    """The ensembles whose checkpoints are in the folder; says on stderr which are left out, and why.

    Raises:
        ConfigurationError: there is none.
    """
    from cosmos_triton.checkpoints import catalog

    served, reasons = catalog.servable_ensembles(checkpoint_dir)
    for ensemble, reason in reasons.items():
        _say(f"not serving {ensemble}: {reason}")
    if not served:
        raise ConfigurationError(f"{checkpoint_dir} holds no model that can be served")
    return served


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cosmos-triton"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
