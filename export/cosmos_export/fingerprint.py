"""What an exported file was made from, as one short text: equal text, equal file."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import onnx

import cosmos_triton
from cosmos_triton.runtimes.plans import FileRecord, file_digest

PROPERTY = "cosmos_triton.fingerprint"
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


def fingerprint(weights: Iterable[FileRecord], sizes: Mapping[str, int], precision: str, opset: int) -> str:
    """Everything that decides what a graph looks like.

    Args:
        weights: the checkpoint's files; their contents count, their names do not.
        sizes: of the axes.
        precision: of weights and activations.
        opset: of the graph.
    """
    axes = ",".join(f"{letter}={size}" for letter, size in sorted(sizes.items()))
    contents = ",".join(sorted(record.sha256 for record in weights))
    parts = (contents, axes, precision, f"opset={opset}", _libraries(), _sources())
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
def _sources() -> str:
    """The code that makes graphs: a changed network is a changed graph."""
    export, library = Path(__file__).parent, Path(cosmos_triton.__file__).parent
    networks = [*(library / "networks").glob("*.py"), library / "diffusion" / "transformer.py"]
    makers = [library / "runtimes" / "stage_modules.py", export / "graphs.py", export / "onnx_graph.py"]
    return ",".join(file_digest(path) for path in sorted((*networks, *makers)))
