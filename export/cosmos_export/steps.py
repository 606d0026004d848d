"""From a checkpoint folder to exported files, one network at a time.

A graph for ONNX Runtime: identify, decide, write. A plan: identify, decide, write its graph, build, record.
"""

import gc
import resource
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cosmos_export.fingerprint import file_records, fingerprint, graph_fingerprint
from cosmos_export.graphs import OPSET, write_graph
from cosmos_export.job import Exported, ExportJob
from cosmos_export.plan_builder import Built, build_plan
from cosmos_export.source import Source, video_of
from cosmos_export.tensorrt_library import TensorRTLibrary, load_library
from cosmos_triton.checkpoints import CheckpointFolder
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.host import Gpu, visible_gpus
from cosmos_triton.pipeline import NETWORKS, Precision
from cosmos_triton.runtimes import FileRecord, PlanRecord, plan_path, record_path

CPU_PRECISION: Precision = "float32"
AHEAD_OF_TIME = ("8.0", "8.9", "12.0")  # capabilities that a plan built without a GPU is for by default


def export_onnx(network: str, job: ExportJob) -> Exported:
    """Export one network in float32 and compare it with PyTorch.

    A file whose checkpoint, shapes and code did not change is kept. The new file appears under its
    name only when it agrees with PyTorch.

    Raises:
        CheckpointError: the folder does not hold the network.
    """
    began = time.monotonic()
    source = _source(network, job)
    path = (job.output_folder or job.checkpoint_dir / "onnx") / f"{network}.onnx"
    files = file_records(source.files, job.checkpoint_dir)
    wanted = fingerprint(source, files, CPU_PRECISION, OPSET)
    if not job.force and graph_fingerprint(path) == wanted:
        return Exported(network, path, time.monotonic() - began, None, kept=True)
    agreement, note = write_graph(source, CPU_PRECISION, path, wanted, job.threads)
    return Exported(network, path, time.monotonic() - began, agreement, note, peak_memory=_peak_memory())


@dataclass(frozen=True)
class _Target:
    """What builds a plan, and for which GPUs."""

    library: TensorRTLibrary
    gpu: Gpu | None  # None where the library builds ahead of time
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """A plan that is wanted: what it is made from, with and for.

    Args:
        source: the network.
        target: what builds it.
        files: the checkpoint's.
        fingerprint: of its graph.
        path: its file.
        graph: the ONNX file it is built from.
    """

    source: Source
    target: _Target
    files: tuple[FileRecord, ...]
    fingerprint: str
    path: Path
    graph: Path


def export_plan(network: str, job: ExportJob) -> Exported:
    """Export one network in its engine precision, compile it, and record what it was compiled for.

    A plan whose checkpoint, shapes, code, library and GPU did not change is kept.

    Raises:
        CheckpointError: the folder does not hold the network.
        ConfigurationError: the library is missing, or there is no GPU to build on.
        BuildError: TensorRT refused the graph.
    """
    began = time.monotonic()
    plan = _identify(network, job)
    if not job.force and _is_current(plan):
        return Exported(network, plan.path, time.monotonic() - began, None, kept=True)
    agreement, note = None, "graph unchanged"
    if job.force or graph_fingerprint(plan.graph) != plan.fingerprint:
        precision = plan.source.network.precision
        agreement, note = write_graph(plan.source, precision, plan.graph, plan.fingerprint, job.threads)
        if agreement is not None and not agreement.holds:
            return Exported(network, plan.graph, time.monotonic() - began, agreement, note)
        gc.collect()
    building = time.monotonic()
    built = _build(plan, job.workspace_gib)
    _record(plan, built, seconds=time.monotonic() - building)
    return Exported(
        network,
        plan.path,
        time.monotonic() - began,
        agreement,
        note,
        peak_memory=_peak_memory(),
        activation_memory=built.activation_bytes,
    )


def _source(network: str, job: ExportJob) -> Source:
    folder = CheckpointFolder(job.checkpoint_dir)
    return Source(NETWORKS[network], folder, job.video or video_of(folder))


def _identify(network: str, job: ExportJob) -> _Plan:
    """What the plan would be, nothing being read but the checkpoint and the record of the plan before."""
    assert job.model_repository is not None
    target = _target(load_library(job.library), job)
    source = _source(network, job)
    path, precision = plan_path(job.model_repository, network), source.network.precision
    before = _read_record(path)
    files = file_records(source.files, job.checkpoint_dir, before.checkpoint if before else ())
    # Beside its weights, so that it can point into them.
    folder = job.output_folder or source.component.directory
    return _Plan(
        source,
        target,
        files,
        fingerprint(source, files, precision, OPSET),
        path,
        folder / f"{network}.{precision}.onnx",
    )


def _target(library: TensorRTLibrary, job: ExportJob) -> _Target:
    if library.builds_ahead_of_time:
        return _Target(library, None, job.capabilities or AHEAD_OF_TIME)
    if job.capabilities:
        raise ConfigurationError(
            f"{library.name} builds for the GPU at hand, not for compute capability {job.capabilities[0]}"
        )
    gpus = visible_gpus()
    if not gpus:
        raise ConfigurationError("no GPU is visible: TensorRT builds on the GPU that will serve")
    if len({gpu.compute_capability for gpu in gpus}) > 1:
        kinds = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in gpus)
        raise ConfigurationError(f"GPUs of several kinds are visible, a plan fits one: {kinds}")
    return _Target(library, gpus[0], (gpus[0].compute_capability,))


def _is_current(plan: _Plan) -> bool:
    """Whether the plan that is there is the one wanted; if only its files' marks changed, they are noted."""
    before = _read_record(plan.path)
    if before is None or not plan.path.is_file() or not before.plan.holds(plan.path):
        return False
    target = plan.target
    wanted = (plan.fingerprint, target.library.name, target.library.version, target.capabilities)
    if wanted != (before.fingerprint, before.library, before.library_version, before.compute_capabilities):
        return False
    if before.checkpoint != plan.files:
        replace(before, checkpoint=plan.files).write(record_path(plan.path))
    return True


def _build(plan: _Plan, workspace_gib: float | None) -> Built:
    """Compile the graph; the plan appears whole or not at all, and the record of the one before goes."""
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = plan.path.with_name(f".{plan.path.name}.partial")
    capabilities = plan.target.capabilities if plan.target.gpu is None else ()
    try:
        built = build_plan(plan.target.library, plan.graph, unfinished, capabilities, workspace_gib)
        record_path(plan.path).unlink(missing_ok=True)
        unfinished.replace(plan.path)
        return built
    finally:
        unfinished.unlink(missing_ok=True)


def _record(plan: _Plan, built: Built, seconds: float) -> None:
    """Write down what the plan was built from, with and for."""
    network, library, gpu = plan.source.network, plan.target.library, plan.target.gpu
    PlanRecord(
        network=network.name,
        library=library.name,
        library_version=library.version,
        compute_capabilities=plan.target.capabilities,
        gpu=gpu.name if gpu else "",
        driver=gpu.driver if gpu else "",
        precision=network.precision,
        shapes={tensor.name: tensor.shape(plan.source.sizes) for tensor in network.tensors},
        fingerprint=plan.fingerprint,
        checkpoint=plan.files,
        plan=FileRecord.of(plan.path, plan.path.name, built.sha256),
        activation_bytes=built.activation_bytes,
        seconds=round(seconds, 1),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(record_path(plan.path))


def _read_record(plan: Path) -> PlanRecord | None:
    try:
        return PlanRecord.read(record_path(plan))
    except ConfigurationError:
        return None


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
