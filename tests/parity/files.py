"""Parity files: what the reference computed, for any checks that know their kind.

A file is `STEM.safetensors` (weights under published names, inputs and outputs under `io.`),
`STEM.json` (how they were made), or both. Its kind follows from its content; the beginning of its
name decides only where the content says nothing, so that a damaged file of a known kind is noticed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

Meta = dict[str, Any]
Tensors = dict[str, Tensor]

INFORMATIONAL = ("dd_bf16",)  # runs in half precision: no two machines agree on their digits


@dataclass(frozen=True)
class ParityFile:
    """One file of the reference's numbers.

    Args:
        path: without suffix.
        meta: the JSON document; empty if there is none.
        tensors: by name; empty if there are none.
        kind: one of KINDS, or None for content nobody here knows.
        directory: all files of the directory by stem, this one included.
        problem: why it could not be read.
    """

    path: Path
    meta: Meta
    tensors: Tensors
    kind: str | None
    directory: Mapping[str, "ParityFile"] = field(repr=False)
    problem: str = ""

    def siblings(self, kind: str) -> list["ParityFile"]:
        """Files of `kind` in the same directory: those that this file's JSON names come first."""
        found = [file for file in self.directory.values() if file.kind == kind]
        text = json.dumps(self.meta)
        return sorted(found, key=lambda file: f"{file.path.name}.safetensors" not in text)

    def cases(self, suffix: str) -> list[str]:
        """NAME of every tensor `io.NAME.suffix`."""
        ending = f".{suffix}"
        return [
            name.removeprefix("io.").removesuffix(ending)
            for name in sorted(self.tensors)
            if name.startswith("io.") and name.endswith(ending)
        ]

    def case(self, name: str) -> Tensors:
        """The tensors `io.NAME.*` without that prefix."""
        prefix = f"io.{name}."
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}


Rule = Callable[[Meta, Tensors], bool]

KINDS: dict[str, Rule] = {
    "dd_bf16": lambda meta, tensors: _is_half_precision(tensors),
    "ar": lambda meta, tensors: "io.prefill_logits" in tensors,
    "ar_real_configs": lambda meta, tensors: _holds_configurations(meta) and not tensors,
    "ar_real_tables": lambda meta, tensors: any(
        name.endswith(".rope_cos") and not name.startswith("io.") for name in tensors
    ),
    "dv_tokenizer": lambda meta, tensors: _is_tokenizer(tensors) and "levels" in meta.get("config", {}),
    "cv_tokenizer": lambda meta, tensors: _is_tokenizer(tensors) and "mean_std.0" in tensors,
    "dv_codebook": lambda meta, tensors: "quantizer.implicit_codebook" in tensors,
    "dd_dit": lambda meta, tensors: "net.x_embedder.proj.1.weight" in tensors,
    "dd_token_embedder": lambda meta, tensors: "net.token_embedder.weight" in tensors,
    "dd_chunking": lambda meta, tensors: "split_with_overlap" in meta or "linear_blend" in meta,
    "dd_pipeline": lambda meta, tensors: any(name.endswith(".chunk0.noise_unit") for name in tensors),
    "preprocess": lambda meta, tensors: any(".in_u8" in name for name in tensors),
}
"""Kind → whether content is of that kind; the first that holds is taken."""


def discover(directory: Path) -> list[ParityFile]:
    """Every parity file of a directory, by name."""
    stems = sorted({path.with_suffix("") for path in directory.glob("*") if path.suffix in _SUFFIXES})
    files: dict[str, ParityFile] = {}
    for stem in stems:
        files[stem.name] = _read(stem, files)
    return list(files.values())


_SUFFIXES = (".json", ".safetensors")


def kind_of(meta: Meta, tensors: Tensors, name: str) -> str | None:
    """The kind that the content shows, or else the one whose name `name` begins with."""
    by_content = next((kind for kind, rule in KINDS.items() if rule(meta, tensors)), None)
    return by_content or kind_by_name(name)


def kind_by_name(name: str) -> str | None:
    """The kind with the longest name that `name` begins with."""
    return max((kind for kind in KINDS if name.startswith(kind)), key=len, default=None)


def _read(stem: Path, directory: Mapping[str, ParityFile]) -> ParityFile:
    meta_path, tensor_path = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    try:
        meta = json.loads(meta_path.read_text()) if meta_path.is_file() else {}
        tensors = load_file(tensor_path) if tensor_path.is_file() else {}
    except Exception as error:  # json, safetensors and the file system each raise their own
        return ParityFile(stem, {}, {}, kind_by_name(stem.name), directory, f"{stem.name}: {error}")
    if not isinstance(meta, dict):
        meta = {}
    return ParityFile(stem, meta, tensors, kind_of(meta, tensors, stem.name), directory)


def _holds_configurations(meta: Meta) -> bool:
    return bool(meta) and all(isinstance(value, dict) and "config" in value for value in meta.values())


def _is_tokenizer(tensors: Tensors) -> bool:
    return "quant_conv.conv3d.weight" in tensors


def _is_half_precision(tensors: Tensors) -> bool:
    numbers = [tensor for name, tensor in tensors.items() if name.startswith("io.")]
    halves = sum(tensor.is_floating_point() and tensor.element_size() == 2 for tensor in numbers)
    return not any(name.startswith("net.blocks.") for name in tensors) and 2 * halves > len(numbers)
