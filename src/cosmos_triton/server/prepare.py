"""Have everything that a server needs: check what can fail cheaply first, then build what is missing.

Plans fit one kind of GPU and one TensorRT. They are built into a copy of the model repository in the state
folder, in a folder of that kind's own, so that servers on different GPUs can share the state folder; a
lock lets one of them build and the others wait.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import DEFAULT, NETWORKS, loaded_networks
from cosmos_triton.runtimes import Host, check_plans, find_problem, plan_path
from cosmos_triton.server import checks
from cosmos_triton.server.launch import ServerSettings

if TYPE_CHECKING:  # seconds of torch
    from cosmos_triton.checkpoints import CheckpointFolder

BUILDING = ("missing", "never")
_GRAPH_BYTES, _PLAN_BYTES = 4, 2  # for each weight: float32 graphs, bfloat16 plans


def prepare(
    settings: ServerSettings, state: Path, folder: "CheckpointFolder", video: VideoGeometry, building: str
) -> ServerSettings:
    """Settings whose model repository and checkpoint folder hold all that is loaded.

    Args:
        settings: what is to be served, from which repository.
        state: the folder to keep plans in.
        folder: the checkpoint folder.
        video: the size of video that the folder's models make.
        building: `missing` builds what is missing or does not fit; `never` refuses.

    Raises:
        ConfigurationError: something is missing and must not, or could not, be built.
    """
    networks = loaded_networks(settings.ensembles, settings.profile)
    if settings.profile != DEFAULT:
        missing = checks.missing_graphs(settings, networks)
        if missing and building == "missing":
            _build_graphs(settings, folder, missing)
        checks.check_networks(settings, video)
        return settings
    host = Host.detect()
    place = state / _kind(host) / "model_repository"
    if building == "missing":
        checks.check_writable(place)
        with locked(place.parent / "lock"):
            shutil.copytree(settings.model_repository, place, dirs_exist_ok=True)  # plans in it stay
            unfit = [
                network
                for network in networks
                if find_problem(plan_path(place, network), settings.checkpoint_dir, host, video)
            ]
            if unfit:
                _build_plans(settings, folder, place, unfit)
    check_plans(place, settings.checkpoint_dir, networks, host, video)
    return replace(settings, model_repository=place)


def _kind(host: Host) -> str:
    """The name of what plans fit: compute capability and TensorRT, for example 9.0-11.1.0."""
    if host.tensorrt_version is None:
        raise ConfigurationError(
            "profile default needs TensorRT, and no libnvinfer is installed here: run in the container, or "
            "choose --profile torch"
        )
    return f"{host.gpus[0].compute_capability}-{host.tensorrt_version}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that all servers on a state folder share; says so when it has to wait."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for {path}: another server builds plans there")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_graphs(settings: ServerSettings, folder: "CheckpointFolder", networks: Sequence[str]) -> None:
    target = settings.checkpoint_dir / "onnx"
    checks.check_writable(target)
    checks.check_room(target, _weights(folder, networks) * _GRAPH_BYTES, f"exporting {', '.join(networks)}")
    _export(settings, ["--onnx-only"], networks)


def _build_plans(
    settings: ServerSettings, folder: "CheckpointFolder", place: Path, networks: Sequence[str]
) -> None:
    target = ["--model-repository", str(place)]
    needed = _weights(folder, networks) * _PLAN_BYTES
    if not os.access(settings.checkpoint_dir, os.W_OK):  # graphs cannot point into it: they keep copies
        target += ["--output-folder", str(place.parent / "graphs")]
        needed *= 2
    checks.check_room(place, needed, f"building plans of {', '.join(networks)}")
    _export(settings, target, networks)


def _export(settings: ServerSettings, target: Sequence[str], networks: Sequence[str]) -> None:
    """The exporter, in a process whose memory goes back; its progress goes to our output."""
    command = [sys.executable, "-m", "cosmos_triton", "export"]
    command += ["--checkpoint-dir", str(settings.checkpoint_dir), *target, "--network", *networks]
    _say(" ".join(command))
    if subprocess.run(command).returncode:
        raise ConfigurationError(f"exporting {', '.join(networks)} failed, see above")


def _weights(folder: "CheckpointFolder", networks: Sequence[str]) -> int:
    """How many weights the networks have together, at most."""
    components = [getattr(folder, NETWORKS[network].component)() for network in networks]
    return sum(tensor.numel() for component in components for tensor in component.tensors.values())


def _say(text: str) -> None:
    print(f"cosmos-triton: {text}", file=sys.stderr, flush=True)
