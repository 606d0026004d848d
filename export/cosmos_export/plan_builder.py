"""ONNX file → TensorRT plan."""

import ctypes
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_export.tensorrt_library import TensorRTLibrary
from cosmos_triton.errors import CosmosError

_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+)")
_MESSAGES_KEPT = 5


class BuildError(CosmosError):
    """TensorRT refused a graph, or could not build it; the message is its own."""


@dataclass(frozen=True)
class Built:
    """A plan that was written.

    Args:
        size: in bytes.
        sha256: of the content.
        activation_bytes: device memory one execution takes beside the weights; None if not told.
    """

    size: int
    sha256: str
    activation_bytes: int | None


def build_plan(
    library: TensorRTLibrary,
    graph: Path,
    plan: Path,
    capabilities: Sequence[str] = (),
    workspace_gib: float | None = None,
) -> Built:
    """Compile a graph; the plan is streamed to its file and never whole in memory.

    Args:
        library: that compiles.
        graph: the ONNX file; it is read by its path, so weights it points to are mapped.
        plan: the file to write.
        capabilities: compute capabilities to build for, if the library builds ahead of time.
        workspace_gib: limit of scratch memory.

    Raises:
        BuildError: the parser rejects the graph, or the build fails.
        ConfigurationError: a capability is unknown to the library.
    """
    trt = library.trt
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = library.create_network(builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        rejections = (parser.get_error(place) for place in range(parser.num_errors))
        reasons = "; ".join(
            f"{at.node_operator()} node {at.node_name()}: {at.code()}: {at.desc()}" for at in rejections
        )
        raise BuildError(f"{library.name} {library.version} rejects {graph.name}: {reasons}")
    if not network.num_outputs:
        raise BuildError(f"{graph} holds no graph")
    config = library.create_config(builder, capabilities, workspace_gib)
    with plan.open("wb") as file:
        writer = _writer(trt, file)
        if not builder.build_serialized_network_to_stream(network, config, writer):
            reasons = "; ".join(logger.errors[-_MESSAGES_KEPT:]) or "no reason given"
            raise BuildError(f"{library.name} {library.version} cannot build {graph.name}: {reasons}")
        return Built(writer.size, writer.digest.hexdigest(), logger.activation_bytes)


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps what went wrong: a failed build returns nothing but a log."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.activation_bytes: int | None = None

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            found = _ACTIVATIONS.search(message)
            if found is not None:
                self.activation_bytes = int(found[1])

    return Logger()


def _writer(trt: Any, file: Any) -> Any:
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.digest = hashlib.sha256()
            self.size = 0

        def write(self, data: Any, size: int | None = None) -> int:
            # Some versions hand over bytes, others a capsule around a pointer, and its length.
            block = data if size is None else _memory(pointer_of(data, None), size)
            file.write(block)
            self.digest.update(block)
            self.size += len(block)
            return len(block)

    return Writer()


def _memory(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")
