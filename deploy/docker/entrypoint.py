"""What the container does: plans that fit this GPU, then tritonserver.

    entrypoint.py [arguments of `cosmos-triton serve`]

Settings, from the environment:

    COSMOS_CHECKPOINT_DIR   folder of checkpoints                                     /checkpoints
    COSMOS_STATE_DIR        what is made here: model repository, plans, graphs        /var/lib/cosmos-triton
    COSMOS_PROFILE          default (TensorRT), torch or cpu                          default
    COSMOS_BUILD_PLANS      missing: build what is missing or does not fit; never: refuse to start
                            without                                                   missing
    COSMOS_SHM_GIB          shared memory the server needs at least, in GiB           2

Exit code 1, and one sentence on stderr, when the server cannot be started as asked. On success this
process becomes tritonserver, so that signals reach it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_triton.errors import ConfigurationError, CosmosError
from cosmos_triton.pipeline import PROFILES, loaded_networks

IMAGE_REPOSITORY = Path("/opt/cosmos-triton/model_repository")
SHARED_MEMORY = Path("/dev/shm")
BUILDING = ("missing", "never")

# Frames of one video are 65 MB; the Python backend's pool would otherwise grow by 1 MB at a time.
_POOL = (
    "--backend-config=python,shm-default-byte-size=67108864",
    "--backend-config=python,shm-growth-byte-size=67108864",
)


@dataclass(frozen=True)
class Settings:
    """How to start; see the module's text."""

    checkpoint: Path
    state: Path
    profile: str
    building: str
    shared_memory_gib: float

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ConfigurationError(f"COSMOS_PROFILE={self.profile!r} is none of {', '.join(PROFILES)}")
        if self.building not in BUILDING:
            raise ConfigurationError(f"COSMOS_BUILD_PLANS={self.building!r} is none of {', '.join(BUILDING)}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the variables.

        Raises:
            ConfigurationError: one has a value that cannot work.
        """
        size = environment.get("COSMOS_SHM_GIB", "2")
        try:
            shared_memory_gib = float(size)
        except ValueError:
            raise ConfigurationError(f"COSMOS_SHM_GIB={size!r} is not a number") from None
        return cls(
            checkpoint=Path(environment.get("COSMOS_CHECKPOINT_DIR", "/checkpoints")),
            state=Path(environment.get("COSMOS_STATE_DIR", "/var/lib/cosmos-triton")),
            profile=environment.get("COSMOS_PROFILE", "default"),
            building=environment.get("COSMOS_BUILD_PLANS", "missing"),
            shared_memory_gib=shared_memory_gib,
        )

    @property
    def repository(self) -> Path:
        """The model repository that is served: the image's files, and the plans built here."""
        return self.state / "model_repository"


def main(arguments: Sequence[str]) -> int:
    """Start the server, or say why not."""
    try:
        settings = Settings.from_environment(os.environ)
        check_folders(settings)
        check_shared_memory(settings, SHARED_MEMORY)
        copy_repository(IMAGE_REPOSITORY, settings.repository)
        prepare_networks(settings)
        line = serve_command(settings, arguments)
    except CosmosError as error:
        print(f"cosmos-triton: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    os.execvp(line[0], line)


def check_folders(settings: Settings) -> None:
    """Refuse to go on without checkpoints, or without a place to keep what is made."""
    if not settings.checkpoint.is_dir():
        raise ConfigurationError(
            f"{settings.checkpoint} is not there: mount the checkpoints, -v DIR:/checkpoints"
        )
    settings.state.mkdir(parents=True, exist_ok=True)
    if not os.access(settings.state, os.W_OK):
        raise ConfigurationError(f"{settings.state} cannot be written to by user {os.getuid()}")


def check_shared_memory(settings: Settings, folder: Path) -> None:
    """Refuse Docker's default of 64 MB, with which the first video fails."""
    size = shutil.disk_usage(folder).total / 2**30
    if size < settings.shared_memory_gib:
        raise ConfigurationError(
            f"{folder} holds {size:.2f} GiB, but {settings.shared_memory_gib:g} are needed: start the "
            "container with --shm-size, or with an emptyDir of medium Memory mounted there"
        )


def copy_repository(image: Path, repository: Path) -> None:
    """Lay the image's model repository over the one that is kept; plans in it stay."""
    shutil.copytree(image, repository, dirs_exist_ok=True)


def prepare_networks(settings: Settings) -> None:
    """Have the files that the profile's network stages load.

    Raises:
        ConfigurationError: they are missing and must not, or could not, be built.
    """
    if settings.profile == "default":
        prepare_plans(settings)
    if settings.profile == "cpu":
        run_export(settings, ["--onnx-only"], needed_networks(settings.checkpoint))


def prepare_plans(settings: Settings) -> None:
    """Check every plan that is served; build those that do not fit, if that is allowed."""
    from cosmos_triton.checkpoints.catalog import geometry
    from cosmos_triton.checkpoints.folder import CheckpointFolder
    from cosmos_triton.runtimes.plans import Host, check_plans, find_problem, plan_path

    networks, host = needed_networks(settings.checkpoint), Host.detect()
    video = geometry(CheckpointFolder(settings.checkpoint))
    if settings.building == "missing":
        unfit = [
            network
            for network in networks
            if find_problem(plan_path(settings.repository, network), settings.checkpoint, host, video)
        ]
        if unfit:
            target = ["--model-repository", str(settings.repository)]
            if not os.access(settings.checkpoint, os.W_OK):  # graphs cannot point into it: keep copies
                target += ["--output-folder", str(settings.state / "graphs")]
            run_export(settings, target, unfit)
    check_plans(settings.repository, settings.checkpoint, networks, host, video)


def needed_networks(checkpoint: Path) -> list[str]:
    """The networks behind the ensembles that the checkpoints allow."""
    from cosmos_triton.checkpoints.catalog import servable_ensembles

    ensembles = servable_ensembles(checkpoint)[0]
    if not ensembles:
        raise ConfigurationError(f"{checkpoint} holds no checkpoints that an ensemble can be served from")
    return list(loaded_networks(tuple(ensembles)))


def run_export(settings: Settings, target: Sequence[str], networks: Sequence[str]) -> None:
    """`cosmos-triton export`, with its progress in the container's log."""
    command = [sys.executable, "-m", "cosmos_triton", "export", *target]
    command += ["--checkpoint-dir", str(settings.checkpoint)]
    command += ["--network", *networks]
    print("cosmos-triton:", " ".join(command), flush=True)
    if subprocess.run(command).returncode:
        raise ConfigurationError(f"exporting {', '.join(networks)} failed, see above")


def serve_command(settings: Settings, arguments: Sequence[str]) -> list[str]:
    """`cosmos-triton serve` on all addresses; further arguments follow, after `--` tritonserver's own."""
    ours, separator, triton = _split(arguments)
    return [
        "cosmos-triton",
        "serve",
        f"--checkpoint-dir={settings.checkpoint}",
        f"--model-repository={settings.repository}",
        f"--profile={settings.profile}",
        "--host=0.0.0.0",
        "--exit-timeout-s=600",  # longer than the longest video: a stopping server finishes what it began
        *ours,
        separator or "--",
        *_POOL,
        *triton,
    ]


def _split(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
    values = list(arguments)
    if "--" not in values:
        return values, "", []
    place = values.index("--")
    return values[:place], "--", values[place + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
