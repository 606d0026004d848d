"""What can be known to fail before anything heavy loads: each check raises one sentence.

`check_machine` asks the machine and needs no torch; `check_folder` asks the checkpoint folder.
"""

import errno
import importlib.util
import os
import shlex
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cosmos_triton.errors import CheckpointError, ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.guardrails import GUARDRAIL, SIGLIP, TEXT_GUARD, Published
from cosmos_triton.host import VISIBLE_VARIABLE, Gpu
from cosmos_triton.pipeline import DEFAULT, ENSEMBLES, loaded_networks
from cosmos_triton.runtimes import Host, check_plans
from cosmos_triton.server.launch import SHARED_MEMORY, ServerSettings
from cosmos_triton.serving import PROFILE_VALUES, read_parameters

if TYPE_CHECKING:  # seconds of torch
    from cosmos_triton.checkpoints import CheckpointFolder

PUBLISHED_SHARED_MEMORY_GIB = 2.0  # at 33x640x1024; less for smaller videos
_PUBLISHED_PIXELS = 33 * 640 * 1024
_LEAST_SHARED_MEMORY_GIB = 1 / 32

_GUARDRAIL_PACKAGES = ("cosmos_guardrail", "torchvision", "cv2")
_GUARDRAIL_FILES: Mapping[str, Sequence[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "prompt_guardrail": ((GUARDRAIL, ("blocklist",)), (TEXT_GUARD, ("config.json",))),
    "video_guardrail": (
        (
            GUARDRAIL,
            ("video_content_safety_filter/safety_filter.pt", "face_blur_filter/Resnet50_Final.pth"),
        ),
        (SIGLIP, ("config.json",)),
    ),
}


def check_ports(settings: ServerSettings, health_port: int = 0) -> None:
    """Refuse ports that another program listens on, and addresses that are not this machine's."""
    ports = {
        "http": settings.http_port,
        "grpc": settings.grpc_port,
        "metrics": settings.metrics_port,
        "health": health_port,
    }
    for name, port in ports.items():
        if port and list(ports.values()).count(port) > 1:
            raise ConfigurationError(f"port {port} is asked for twice: give --{name}-port another")
        try:
            _listen(settings.host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"cannot listen on {settings.host}:{port}: {error.strerror or error}"
                ) from None
            raise ConfigurationError(
                f"port {port} of {settings.host} is taken, perhaps by another server: "
                f"give another with --{name}-port"
            ) from None


def _listen(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def check_gpu(profile: str, gpus: Sequence[Gpu]) -> None:
    """Refuse a GPU profile without a GPU, and with several: a server uses one, and would start on each."""
    if profile == "cpu" or len(gpus) == 1:
        return
    if not gpus:
        raise ConfigurationError(
            f"profile {profile} runs on an NVIDIA GPU, and none is visible here (nvidia-smi): "
            "in a container pass --gpus, or choose --profile cpu"
        )
    raise ConfigurationError(
        f"{len(gpus)} GPUs are visible, and one server uses one: choose it with {VISIBLE_VARIABLE}=0, "
        "and start a server for each of the others"
    )


def shared_memory_needed_gib(video: VideoGeometry) -> float:
    """Shared memory that the stages need for videos of this size."""
    share = video.frames * video.height * video.width / _PUBLISHED_PIXELS
    return max(_LEAST_SHARED_MEMORY_GIB, PUBLISHED_SHARED_MEMORY_GIB * share)


def check_shared_memory(needed_gib: float, folder: Path = SHARED_MEMORY) -> None:
    """Refuse Docker's default of 64 MB, with which the first video of the published size fails."""
    size = shutil.disk_usage(folder).total / 2**30
    if size < needed_gib:
        raise ConfigurationError(
            f"{folder} holds {size:.2f} GiB, but {needed_gib:.3g} are needed: start the "
            "container with --shm-size, or with an emptyDir of medium Memory mounted there"
        )


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for; `needed` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigurationError(
            f"{what} takes about {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free"
        )


def check_writable(folder: Path) -> None:
    """Make a folder, or refuse."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ConfigurationError(f"{folder} cannot be written to by user {os.getuid()}")


def check_guardrails(settings: ServerSettings) -> None:
    """Refuse a posture whose packages or weights are not here."""
    for stage, wanted in _GUARDRAIL_FILES.items():
        if stage not in settings.models or parameter(settings, stage, "posture") != "full":
            continue
        missing = [name for name in _GUARDRAIL_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigurationError(
                f"{stage} has the posture full, which needs the package {missing[0]}: pip install "
                f"'cosmos-triton[guardrail]', or choose COSMOS_{stage.upper()}_POSTURE=built-in"
            )
        published = Published(settings.checkpoint_dir)
        for repositories, files in wanted:
            try:
                published.part(repositories, *files)
            except CheckpointError as error:
                raise ConfigurationError(f"{stage} has the posture full: {error}") from None


def check_networks(settings: ServerSettings, video: VideoGeometry, host: Host | None = None) -> None:
    """Refuse plans that are missing or do not fit, and missing graphs."""
    networks = loaded_networks(settings.ensembles, settings.profile)
    if settings.profile == DEFAULT:
        check_plans(settings.model_repository, settings.checkpoint_dir, networks, host, video)
    check_graphs(settings)


def check_graphs(settings: ServerSettings) -> None:
    """Refuse missing graphs."""
    missing = missing_graphs(settings, loaded_networks(settings.ensembles, settings.profile))
    if missing:
        raise ConfigurationError(graphs_sentence(settings.checkpoint_dir, missing))


def missing_graphs(settings: ServerSettings, networks: Sequence[str]) -> list[str]:
    """Of the networks that ONNX Runtime is to run, those whose graph is not in the checkpoint folder."""
    return [
        network
        for network in networks
        if settings.profile != DEFAULT
        and parameter(settings, network, "runtime") == "onnx"
        and not graph_path(settings.checkpoint_dir, network).is_file()
    ]


def graph_path(checkpoint_dir: Path, network: str) -> Path:
    """Where profile cpu finds a network."""
    return checkpoint_dir / "onnx" / f"{network}.onnx"


def graphs_sentence(checkpoint_dir: Path, missing: Sequence[str]) -> str:
    """What is missing and how to make it."""
    files = ", ".join(f"{network}.onnx" for network in missing)
    command = shlex.join(["cosmos-triton", "export", "--checkpoint-dir", str(checkpoint_dir)])
    return (
        f"{checkpoint_dir / 'onnx'} lacks {files}: run `{command} --onnx-only --network {' '.join(missing)}`"
    )


def parameter(settings: ServerSettings, stage: str, name: str) -> str:
    """What a stage will be told: by the environment, else by its pbtxt in force, else by default."""
    written = PROFILE_VALUES[settings.profile].get(stage, {})
    return str(getattr(read_parameters(stage, written, os.environ), name))


def ensembles_to_serve(
    settings: ServerSettings,
    folder: "CheckpointFolder",
    named: Sequence[str],
    graphs_are_built: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """The ensembles named, or else all that can be served, and for each one left out the reason.

    Raises:
        ConfigurationError: one that is named cannot be served, or none can.
    """
    from cosmos_triton.checkpoints import servable_ensembles

    servable, reasons = servable_ensembles(folder)
    for ensemble in servable:
        missing = missing_graphs(settings, loaded_networks((ensemble,), settings.profile))
        if missing and not graphs_are_built:
            reasons[ensemble] = graphs_sentence(settings.checkpoint_dir, missing)
    for ensemble in named:
        reason = reasons.get(ensemble) or ("" if ensemble in servable else _absent(folder, ensemble))
        if reason:
            raise ConfigurationError(f"{ensemble} cannot be served: {reason}")
    served = list(named) or [ensemble for ensemble in servable if ensemble not in reasons]
    if not served:
        raise ConfigurationError(
            f"{settings.checkpoint_dir} holds nothing that can be served: "
            + "; ".join(f"{ensemble}: {reason}" for ensemble, reason in reasons.items())
        )
    return served, {name: reason for name, reason in reasons.items() if not named}


def _absent(folder: "CheckpointFolder", ensemble: str) -> str:
    """Why the folder has no model for an ensemble of which it knows nothing."""
    try:
        folder.autoregressive(kind=ENSEMBLES[ensemble].kind)
    except CheckpointError as error:
        return str(error)
    return ""
