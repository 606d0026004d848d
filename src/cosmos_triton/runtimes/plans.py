"""TensorRT plans and what each was built for, checked before Triton loads them.

A plan fits one TensorRT, one kind of GPU, one checkpoint and one size of video, and says none of it
itself. Beside `1/model.plan` therefore lies `1/model.plan.json`, its record. A plan that does not fit
is found here, before the server starts: Triton would find out only while loading it, and a failed
load leaves GPU memory taken. Imports no torch and no TensorRT.
"""

import ctypes
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.host import Gpu, visible_gpus
from cosmos_triton.pipeline import NETWORKS, video_sizes

SERVED_LIBRARY = "tensorrt"  # the one Triton's backend is built on

_BLOCK = 1 << 24
_FORMAT = 1
_LIBRARY_FILES = ("libnvinfer.so.11", "libnvinfer.so.10")


@dataclass(frozen=True)
class FileRecord:
    """A file's content, and the marks by which an unchanged file is known without reading it.

    Args:
        path: relative to the checkpoint folder, or the name of the plan.
        size: in bytes.
        modified_ns: time of the last change.
        sha256: of the content, in hexadecimal.
    """

    path: str
    size: int
    modified_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str, sha256: str | None = None) -> "FileRecord":
        """Record a file; its content is read unless the digest is given."""
        status = path.stat()
        return cls(name, status.st_size, status.st_mtime_ns, sha256 or file_digest(path))

    def holds(self, path: Path) -> bool:
        """Whether the file still has this content; it is read only if its marks changed."""
        status = path.stat()
        if status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.modified_ns or file_digest(path) == self.sha256


@dataclass(frozen=True)
class PlanRecord:
    """What a plan was built from, with and for.

    Args:
        network: its Triton model.
        library: `tensorrt` or `tensorrt_rtx`.
        library_version: as the library tells it.
        compute_capabilities: of the GPU it was built on, or those it was built for.
        gpu: name of the GPU it was built on; empty for a plan built ahead of time.
        driver: of that GPU.
        precision: of weights and activations.
        shapes: of every input and output.
        fingerprint: of the graph: checkpoint, shapes, precision, libraries and code.
        checkpoint: the files whose weights it holds.
        plan: the plan file.
        activation_bytes: device memory of one execution beside the weights, where known.
        seconds: the build took.
        built: date and time, ISO 8601.
    """

    network: str
    library: str
    library_version: str
    compute_capabilities: tuple[str, ...]
    gpu: str
    driver: str
    precision: str
    shapes: Mapping[str, tuple[int, ...]]
    fingerprint: str
    checkpoint: tuple[FileRecord, ...]
    plan: FileRecord
    activation_bytes: int | None
    seconds: float
    built: str

    def write(self, path: Path) -> None:
        """Write the record; it appears whole or not at all."""
        unfinished = path.with_name(f".{path.name}.partial")
        unfinished.write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> "PlanRecord":
        """Read a record.

        Raises:
            ConfigurationError: there is none, or it is no record of this format.
        """
        try:
            fields: dict[str, Any] = json.loads(path.read_text())
            if fields.pop("format") != _FORMAT:
                raise ValueError("unknown format")
            fields["checkpoint"] = tuple(FileRecord(**file) for file in fields["checkpoint"])
            fields["plan"] = FileRecord(**fields["plan"])
            fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
            fields["shapes"] = {name: tuple(shape) for name, shape in fields["shapes"].items()}
            return cls(**fields)
        except FileNotFoundError:
            raise ConfigurationError(f"{path} is missing") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is no plan record: {error}") from None


@dataclass(frozen=True)
class Host:
    """What plans have to fit here.

    Args:
        tensorrt_version: major.minor.patch of the TensorRT that Triton's backend loads, if there is one.
        gpus: all that are visible.
    """

    tensorrt_version: str | None
    gpus: tuple[Gpu, ...]

    @classmethod
    def detect(cls) -> "Host":
        """Ask libnvinfer for its version and nvidia-smi for the GPUs."""
        return cls(installed_tensorrt(), visible_gpus())


def plan_path(repository: Path, network: str) -> Path:
    """Where Triton expects a network's plan."""
    return repository / network / "1" / "model.plan"


def record_path(plan: Path) -> Path:
    """Where the record of a plan lies."""
    return plan.with_name(f"{plan.name}.json")


def check_plans(
    repository: Path,
    checkpoint: Path,
    networks: Iterable[str] = NETWORKS,
    host: Host | None = None,
    geometry: VideoGeometry | None = None,
) -> None:
    """Refuse plans that would not load, or would not serve this checkpoint.

    Args:
        repository: the model repository.
        checkpoint: the folder of checkpoints that will be served.
        networks: those that will be loaded as plans.
        host: what they have to fit; this machine by default.
        geometry: the size of video that is served, where known.

    Raises:
        ConfigurationError: names every plan that does not fit, why, and the command that mends it.
    """
    host = host or Host.detect()
    networks = tuple(networks)

    def problem(network: str) -> str | None:
        return find_problem(plan_path(repository, network), checkpoint, host, geometry)

    with ThreadPoolExecutor(max_workers=len(networks) or 1) as pool:  # hashing releases the GIL
        problems = dict(zip(networks, pool.map(problem, networks), strict=True))
    refused = {network: found for network, found in problems.items() if found}
    if refused:
        reasons = "; ".join(refused.values())
        raise ConfigurationError(
            f"{reasons}: run `cosmos-triton export --checkpoint-dir {checkpoint} "
            f"--model-repository {repository} --network {' '.join(refused)}`"
        )


def find_problem(
    plan: Path, checkpoint: Path, host: Host, geometry: VideoGeometry | None = None
) -> str | None:
    """Why a plan cannot be served here, as part of a sentence; None if it can."""
    if not plan.is_file():
        return f"{plan} is missing"
    try:
        record = PlanRecord.read(record_path(plan))
    except ConfigurationError as error:
        return str(error)
    misfit = _misfit(record, host)
    if misfit:
        return f"{plan} {misfit}"
    if geometry is not None and not _makes(record, geometry):
        size = f"{geometry.frames}x{geometry.height}x{geometry.width}"
        return f"{plan} was built for shapes {_text(record.shapes)}, which are not those of {size} videos"
    if not record.plan.holds(plan):
        return f"{plan} is not the file its record describes: it is damaged or was exchanged"
    changed = _changed(record.checkpoint, checkpoint)
    if changed:
        return f"{plan} was built from another {changed} than the one in {checkpoint}"
    return None


def _misfit(record: PlanRecord, host: Host) -> str | None:
    if record.library != SERVED_LIBRARY:
        return f"was built by {record.library}, which Triton cannot load"
    if host.tensorrt_version is None:
        return f"needs TensorRT {record.library_version}, but no libnvinfer is installed here"
    if _release(record.library_version) != _release(host.tensorrt_version):
        return (
            f"was built by TensorRT {record.library_version}, but {host.tensorrt_version} is installed here"
        )
    if not host.gpus:
        return (
            f"needs a GPU of compute capability {', '.join(record.compute_capabilities)}, but none is visible"
        )
    for gpu in host.gpus:
        if gpu.compute_capability not in record.compute_capabilities:
            return (
                f"was built for compute capability {', '.join(record.compute_capabilities)}, "
                f"but {gpu.name} has {gpu.compute_capability}"
            )
    return None


def _changed(files: Iterable[FileRecord], folder: Path) -> str | None:
    """The first file that is there with another content. One that is not there contradicts nothing:
    once its plan is built, a network's checkpoint may be taken away."""
    for file in files:
        path = folder / file.path
        if path.is_file() and not file.holds(path):
            return file.path
    return None


def _makes(record: PlanRecord, video: VideoGeometry) -> bool:
    """Whether the plan's tensors are those of this size of video."""
    network, sizes = NETWORKS.get(record.network), video_sizes(video)
    return network is not None and all(
        tensor.has_shape(record.shapes.get(tensor.name, ()), sizes) for tensor in network.tensors
    )


def _release(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:3])


def _text(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def installed_tensorrt() -> str | None:
    """Version of the TensorRT that the loader finds, major.minor.patch; None where there is none."""
    for name in _LIBRARY_FILES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        number = int(library.getInferLibVersion())  # major * 10000 + minor * 100 + patch
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None
