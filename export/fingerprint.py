"""What an exported file was made from, as one short text: equal text, equal file."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import onnx

import cosmos_triton.networks

PROPERTY = "cosmos_triton.fingerprint"
_LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx-ir")
_BLOCK = 1 << 22


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the contents of several files, in the order of their names."""
    digests = (file_digest(path) for path in sorted(paths, key=lambda path: path.name))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def fingerprint(weights: str, sizes: Mapping[str, int], precision: str, opset: int) -> str:
    """Everything that decides what a graph looks like.

    Args:
        weights: digest of the checkpoint's files.
        sizes: of the axes.
        precision: of weights and activations.
        opset: of the graph.
    """
    axes = ",".join(f"{letter}={size}" for letter, size in sorted(sizes.items()))
    parts = (weights, axes, precision, f"opset={opset}", _libraries(), _sources())
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
    folders = (*cosmos_triton.networks.__path__, str(Path(__file__).parent))
    return files_digest(path for folder in folders for path in Path(folder).glob("*.py"))
