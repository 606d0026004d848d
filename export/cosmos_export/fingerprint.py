"""What an exported file was made from, as one short text: equal text, equal file."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import onnx

import cosmos_triton
from cosmos_export.source import Source
from cosmos_triton.pipeline import Precision
from cosmos_triton.runtimes import FileRecord, file_digest

PROPERTY = "cosmos_triton.fingerprint"
_ROOMS = ("networks", "diffusion")
_LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx-ir")


def file_records(
    paths: Iterable[Path], folder: Path, known: Iterable[FileRecord] = ()
) -> tuple[FileRecord, ...]:
    """The contents of files, by name; those that did not change since `known` are not read again."""
    before = {record.path: record for record in known}
    records = []
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        record = before.get(name)
        if record is None or FileRecord.of(path, name, record.sha256) != record:
            record = FileRecord.of(path, name)
        records.append(record)
    return tuple(records)


def fingerprint(source: Source, weights: Iterable[FileRecord], precision: Precision, opset: int) -> str:
    """Everything that decides what a graph looks like.

    Args:
        source: the network, its architecture and the size of video.
        weights: the checkpoint's files; their contents count, their names do not.
        precision: of weights and activations.
        opset: of the graph.
    """
    network = source.network
    axes = ",".join(f"{letter}={size}" for letter, size in sorted(source.sizes.items()))
    contents = ",".join(sorted(record.sha256 for record in weights))
    parts = (
        contents,
        repr(source.component.architecture),
        repr(network.tensors),
        axes,
        precision,
        f"opset={opset}",
        _libraries(),
        _sources(network.module),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def graph_fingerprint(path: Path) -> str | None:
    """The fingerprint an ONNX file carries; None if there is no such file, or none of ours."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # a damaged file raises protobuf's own errors; it is as good as none
        return None
    return next((entry.value for entry in model.metadata_props if entry.key == PROPERTY), None)


@cache
def _libraries() -> str:
    return ",".join(f"{name}={version(name)}" for name in _LIBRARIES)


@cache
def _sources(module: str) -> str:
    """The code that makes a graph: a changed network is a changed graph."""
    export, library = Path(__file__).parent, Path(cosmos_triton.__file__).parent
    makers = (library / "runtimes" / "stage_modules.py", export / "onnx_graph.py")
    return ",".join(file_digest(path) for path in sorted((*network_files(module), *makers)))


def network_files(module: str) -> set[Path]:
    """The files that define a network: its module's, and those it imports from the rooms of networks."""
    found, waiting = set[Path](), [module]
    while waiting:
        path = _file_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += _imported(path)
    return found


def _file_of(module: str) -> Path | None:
    """The file of a module that is in one of the rooms; None for any other, and for a room itself."""
    package, _, inner = module.partition(".")
    file = Path(cosmos_triton.__file__).parent.joinpath(*inner.split(".")).with_suffix(".py")
    if package != cosmos_triton.__name__ or inner.partition(".")[0] not in _ROOMS:
        return None
    return file if file.is_file() else None


def _imported(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, also of those behind a room's face."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            behind = _face(node.module)
            yield from (f"{node.module}.{behind.get(alias.name, alias.name)}" for alias in node.names)


@cache
def _face(room: str) -> dict[str, str]:
    """The names that a room hands out, and the module of each; empty for what is no room."""
    package, _, inner = room.partition(".")
    stub = Path(cosmos_triton.__file__).parent / inner / "__init__.pyi"
    if package != cosmos_triton.__name__ or inner not in _ROOMS:
        return {}
    imports = (node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom))
    return {name.asname or name.name: node.module for node in imports if node.module for name in node.names}
