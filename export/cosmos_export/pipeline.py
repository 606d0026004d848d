"""From a checkpoint folder to exported files, one network at a time."""

import gc
import os
import resource
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from cosmos_export.fingerprint import file_records, fingerprint, graph_fingerprint
from cosmos_export.graphs import GRAPHS, ExportGraph, folder_geometry
from cosmos_export.job import Exported, ExportJob
from cosmos_export.parity import Agreement, compare
from cosmos_export.plan_builder import build_plan
from cosmos_export.tensorrt_library import TensorRTLibrary, load_library
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.runtimes.onnx import OnnxRuntime
from cosmos_triton.runtimes.plans import FileRecord, Gpu, PlanRecord, plan_path, record_path, visible_gpus
from cosmos_triton.runtimes.pytorch import PyTorchRuntime

OPSET = 20  # every TensorRT reads it, and attention cannot fail there for want of a kernel
CPU_PRECISION = torch.float32
AHEAD_OF_TIME = ("8.0", "8.9", "12.0")  # capabilities that a plan built without a GPU is for by default

# A float32 copy and ONNX Runtime's own come on top of the graph: networks beyond this are compared
# on the GPU, by `python -m cosmos_export verify`.
_COMPARED_BYTES = 3 << 30
_COMPARED_PIXELS = 1 << 21
_COMPARED_VIDEO = VideoGeometry(33, 64, 96)


def export_onnx(network: str, job: ExportJob) -> Exported:
    """Export one network in float32 and compare it with PyTorch.

    A file whose checkpoint, shapes and code did not change is kept. The new file appears under its
    name only when it agrees with PyTorch.

    Raises:
        CheckpointError: the folder does not hold the network.
    """
    began = time.monotonic()
    graph, folder = GRAPHS[network], CheckpointFolder(job.checkpoint)
    video = job.video or folder_geometry(folder)
    sizes = graph.sizes(folder, video)
    path = (job.output or job.checkpoint / "onnx") / f"{network}.onnx"
    files = file_records(graph.files(folder), job.checkpoint)
    wanted = fingerprint(files, sizes, str(CPU_PRECISION), OPSET)
    if not job.force and graph_fingerprint(path) == wanted:
        return Exported(network, path, time.monotonic() - began, None, kept=True)
    agreement, note = _write_graph(graph, folder, video, CPU_PRECISION, path, wanted, job.threads)
    return Exported(network, path, time.monotonic() - began, agreement, note, peak_memory=_peak_memory())


def export_plan(network: str, job: ExportJob) -> Exported:
    """Export one network in its engine precision, compile it, and record what it was compiled for.

    A plan whose checkpoint, shapes, code, library and GPU did not change is kept.

    Raises:
        CheckpointError: the folder does not hold the network.
        ConfigurationError: the library is missing, or there is no GPU to build on.
        BuildError: TensorRT refused the graph.
    """
    began = time.monotonic()
    assert job.repository is not None
    library = load_library(job.library)
    gpu, capabilities = _target(library, job)
    graph, folder = GRAPHS[network], CheckpointFolder(job.checkpoint)
    video = job.video or folder_geometry(folder)
    sizes = graph.sizes(folder, video)
    plan = plan_path(job.repository, network)
    before = _record(plan)
    files = file_records(graph.files(folder), job.checkpoint, before.checkpoint if before else ())
    wanted = fingerprint(files, sizes, str(graph.precision), OPSET)
    made_with = (wanted, library.name, library.version, capabilities)
    if not job.force and before is not None and plan.is_file() and before.plan.holds(plan):
        made_before = (
            before.fingerprint,
            before.library,
            before.library_version,
            before.compute_capabilities,
        )
        if made_before == made_with:
            if before.checkpoint != files:
                replace(before, checkpoint=files).write(record_path(plan))
            return Exported(network, plan, time.monotonic() - began, None, kept=True)

    onnx_path = graph_path(network, job, folder)
    agreement, note = None, "graph unchanged"
    if job.force or graph_fingerprint(onnx_path) != wanted:
        agreement, note = _write_graph(graph, folder, video, graph.precision, onnx_path, wanted, job.threads)
        if agreement is not None and not agreement.holds:
            return Exported(network, onnx_path, time.monotonic() - began, agreement, note)
        gc.collect()

    plan.parent.mkdir(parents=True, exist_ok=True)
    unfinished = plan.with_name(f".{plan.name}.partial")
    building = time.monotonic()
    try:
        built = build_plan(
            library, onnx_path, unfinished, capabilities if gpu is None else (), job.workspace_gib
        )
        record_path(plan).unlink(missing_ok=True)
        unfinished.replace(plan)
    finally:
        unfinished.unlink(missing_ok=True)
    PlanRecord(
        network=network,
        library=library.name,
        library_version=library.version,
        compute_capabilities=capabilities,
        gpu=gpu.name if gpu else "",
        driver=gpu.driver if gpu else "",
        precision=str(graph.precision).removeprefix("torch."),
        shapes={tensor.name: tensor.shape(sizes) for tensor in (*graph.inputs, graph.output)},
        fingerprint=wanted,
        checkpoint=files,
        plan=FileRecord.of(plan, plan.name, built.sha256),
        activation_bytes=built.activation_bytes,
        seconds=round(time.monotonic() - building, 1),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(record_path(plan))
    return Exported(
        network,
        plan,
        time.monotonic() - began,
        agreement,
        note,
        peak_memory=_peak_memory(),
        activation_memory=built.activation_bytes,
    )


def graph_path(network: str, job: ExportJob, folder: CheckpointFolder) -> Path:
    """Where the graph of a plan lies: beside its weights, so that it can point into them."""
    graph = GRAPHS[network]
    precision = str(graph.precision).removeprefix("torch.")
    return (job.output or graph.component(folder).directory) / f"{network}.{precision}.onnx"


def _write_graph(
    graph: ExportGraph,
    folder: CheckpointFolder,
    video: VideoGeometry,
    precision: torch.dtype,
    path: Path,
    wanted: str,
    threads: int,
) -> tuple[Agreement | None, str]:
    """Write a graph that agrees with PyTorch; how well it does, and what there is to say."""
    from cosmos_export import onnx_graph  # seconds of imports, needed only for what did change

    if not os.access(_existing(path.parent), os.W_OK):
        raise ConfigurationError(f"{path.parent} cannot be written to: give another folder with --output")
    if threads:
        torch.set_num_threads(threads)
    module = graph.load(folder, precision)
    path.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.stem}.partial.onnx")
    data = f"{path.name}.data"

    def write(size: VideoGeometry) -> Mapping[str, Tensor]:
        inputs = graph.example_inputs(graph.sizes(folder, size))
        model = onnx_graph.build(module, inputs, graph.output.name, OPSET)
        onnx_graph.save(model, unfinished, data, wanted)
        return inputs

    weights = sum(tensor.numel() * 4 for tensor in module.parameters())
    agreement, note = None, f"{weights / 2**30:.0f} GiB in float32: compare it on the GPU with verify"
    try:
        if weights <= _COMPARED_BYTES:
            size = _small(video)
            agreement, note = _compare(graph, module, unfinished, write(size), threads), ""
            if size != video:
                note = f"compared at {size.frames}x{size.height}x{size.width}"
        if agreement is None or (agreement.holds and note):
            write(video)
        if agreement is None or agreement.holds:
            unfinished.rename(path)
        return agreement, note
    finally:
        unfinished.unlink(missing_ok=True)


def _small(video: VideoGeometry) -> VideoGeometry:
    """The size that a CPU compares in seconds: at the published one a decoder takes minutes."""
    pixels = video.frames * video.height * video.width
    return video if pixels <= _COMPARED_PIXELS else _COMPARED_VIDEO


def _compare(
    graph: ExportGraph, module: nn.Module, path: Path, inputs: Mapping[str, Tensor], threads: int
) -> Agreement:
    """ONNX Runtime against PyTorch, both computing in float32 with the weights as exported."""
    from cosmos_export.onnx_graph import load_in_float32

    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    half = next(module.parameters()).dtype != torch.float32
    runtime = OnnxRuntime(load_in_float32(path) if half else path, threads)
    actual = runtime(arrays)[graph.output.name]
    widened = deepcopy(module).float() if half else module
    expected = PyTorchRuntime(widened, tuple(inputs), graph.output.name)(arrays)[graph.output.name]
    return compare(actual, expected, graph.tolerance)


def _target(library: TensorRTLibrary, job: ExportJob) -> tuple[Gpu | None, tuple[str, ...]]:
    """The GPU to build on, or None and the capabilities to build for ahead of time."""
    if library.builds_ahead_of_time:
        return None, job.capabilities or AHEAD_OF_TIME
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
    return gpus[0], (gpus[0].compute_capability,)


def _record(plan: Path) -> PlanRecord | None:
    try:
        return PlanRecord.read(record_path(plan))
    except ConfigurationError:
        return None


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
