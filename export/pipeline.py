"""From a checkpoint folder to exported files, one network at a time."""

import time

import torch

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.runtimes.onnx import OnnxRuntime
from cosmos_triton.runtimes.pytorch import PyTorchRuntime
from export.fingerprint import files_digest, fingerprint, graph_fingerprint
from export.graphs import GRAPHS, folder_geometry
from export.job import Exported, ExportJob
from export.parity import compare

OPSET = 20  # every TensorRT reads it, and attention cannot fail there for want of a kernel
CPU_PRECISION = torch.float32


def export_onnx(network: str, job: ExportJob) -> Exported:
    """Export one network in float32 and compare it with PyTorch.

    A file whose checkpoint, shapes and code did not change is kept. The new file appears under its
    name only when it agrees with PyTorch.

    Raises:
        CheckpointError: the folder does not hold the network.
    """
    began = time.monotonic()
    graph = GRAPHS[network]
    folder = CheckpointFolder(job.checkpoint)
    sizes = graph.sizes(folder, job.video or folder_geometry(folder))
    path = job.output / f"{network}.onnx"
    wanted = fingerprint(files_digest(graph.files(folder)), sizes, str(CPU_PRECISION), OPSET)
    if not job.force and graph_fingerprint(path) == wanted:
        return Exported(network, path, time.monotonic() - began, None)

    from export import onnx_graph  # seconds of imports, needed only for what did change

    if job.threads:
        torch.set_num_threads(job.threads)
    module = graph.load(folder, CPU_PRECISION)
    inputs = graph.example_inputs(sizes)
    path.unlink(missing_ok=True)
    unfinished = path.with_name(f".{network}.partial.onnx")
    try:
        model = onnx_graph.build(module, inputs, graph.output.name, OPSET)
        onnx_graph.save(model, unfinished, f"{path.name}.data", wanted)
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        expected = PyTorchRuntime(module, tuple(inputs), graph.output.name)(arrays)[graph.output.name]
        actual = OnnxRuntime(unfinished, job.threads)(arrays)[graph.output.name]
        agreement = compare(actual, expected, graph.tolerances[CPU_PRECISION])
        if agreement.holds:
            unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return Exported(network, path, time.monotonic() - began, agreement)
