"""Parity files: what the reference computed, for any checks that know their kind.

A file is `STEM.safetensors` (weights under published names, inputs and outputs under `io.`),
`STEM.json` (how they were made), or both. Its kind follows from its content: from any of its weights,
else from any of its inputs and outputs, else from its JSON. The beginning of its name decides only where
the content says nothing. So a file that lacks something keeps its kind, and its check says what it lacks.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cosmos_triton.checkpoints.files import read_tensors
from cosmos_triton.checkpoints.published import PREFIX, Family

Meta = dict[str, Any]
Tensors = dict[str, Tensor]

IO = "io."
INFORMATIONAL = ("dd_bf16",)  # runs in half precision: no two machines agree on their digits


class ContentMissing(AssertionError):
    """A file of a known kind lacks what its check reads."""


class Content(dict[str, Any]):
    """What a file holds; reading what it does not hold ends in one sentence instead of a KeyError.

    Args:
        where: the file, and the place in it, that the sentence names.
    """

    def __init__(self, where: str, items: Mapping[str, Any]) -> None:
        super().__init__({key: _content(f"{where}: {key}", value) for key, value in items.items()})
        self._where = where

    def __missing__(self, key: str) -> Any:
        raise ContentMissing(f"{self._where} lacks {key}")


def _content(where: str, value: Any) -> Any:
    if isinstance(value, dict):
        return Content(where, value)
    if isinstance(value, list):
        return [_content(f"{where} {place}", item) for place, item in enumerate(value)]
    return value


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

    def __post_init__(self) -> None:
        for name, suffix in (("meta", ".json"), ("tensors", ".safetensors")):
            path = self.path.with_name(self.path.name + suffix)
            where = path.name if path.is_file() else f"{path.name} (there is no such file)"
            object.__setattr__(self, name, Content(where, getattr(self, name)))

    def weights(self, family: Family) -> Tensors:
        """The tensors that are not `io.*`, under published names, as the checkpoint loader takes them."""
        return family.canonical_tensors({n: t for n, t in self.tensors.items() if not n.startswith(IO)})

    def siblings(self, kind: str) -> list["ParityFile"]:
        """Readable files of `kind` in the same directory: those that this file's JSON names come first."""
        found = [file for file in self.directory.values() if file.kind == kind and not file.problem]
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
        found = {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}
        return Content(f"{self.path.name}.safetensors: io.{name}", found)


KINDS = (
    "ar",
    "ar_real_configs",
    "ar_real_tables",
    "dv_tokenizer",
    "dv_codebook",
    "cv_tokenizer",
    "dd_dit",
    "dd_token_embedder",
    "dd_chunking",
    "dd_pipeline",
    "dd_bf16",
    "preprocess",
)

# Names of tensors → kind; the first that any name of a file begins with is taken.
_WEIGHTS = {
    r"layers\.\d+\.|tok_embeddings\.|output\.weight": "ar",
    r"[^.]+\.(rope_cos|rope_sin|temporal_inv_freq|spatial_inv_freq|abs_pos_emb)$": "ar_real_tables",
    r"net\.(?!token_embedder\.)|logvar\.": "dd_dit",
    r"net\.token_embedder\.": "dd_token_embedder",
    r"(encoder|decoder|quant_conv|post_quant_conv|mean_std)\.": "tokenizer",
    r"(inv_quant\.)?quantizer\.": "dv_codebook",
}
_INPUTS_AND_OUTPUTS = {
    r"(prefill_logits|decode_logits|tf_tokens|topp\.|greedy_|debug\.kv_)": "ar",
    r"(split\.|blend\d+\.)": "dd_chunking",
    r".+\.(chunk\d+\.(noise_unit|latent)|video01|video_u8)$": "dd_pipeline",
    r".+\.(in_u8|in_u8_lastframe|out_lastframe|out_one_frame)$|save\.": "preprocess",
    r".+\.(crossattn_emb|step\d+\..+|sigmas|noise_unit)$|rope_real\.": "dd_dit",
    r"fsq\.|.+\.(prequant|codes|encoder_out|patcher_out)$": "dv_tokenizer",
    r".+\.(latent_raw|latent_normalized|latent_times_sigma_data)$": "cv_tokenizer",
    r".+\.recon$": "tokenizer",
}


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
    weights = [n.removeprefix(PREFIX) for n in tensors if not n.startswith(IO)]
    inputs_and_outputs = [n.removeprefix(IO) for n in tensors if n.startswith(IO)]
    if kind_by_name(name) in INFORMATIONAL and not weights:
        return kind_by_name(name)  # nothing but its name tells it from a damaged file of another kind
    kind = _matching(_WEIGHTS, weights) or _matching(_INPUTS_AND_OUTPUTS, inputs_and_outputs)
    if not tensors:
        kind = _kind_of_document(meta)
    if kind == "tokenizer":
        return _kind_of_tokenizer(meta, weights, inputs_and_outputs, name)
    return kind or kind_by_name(name)


def kind_by_name(name: str) -> str | None:
    """The kind with the longest name that `name` begins with, as a whole word: `ar12b`, not `arrow`."""
    return max((kind for kind in KINDS if re.match(f"{kind}(?![a-z])", name)), key=len, default=None)


def _matching(patterns: Mapping[str, str], names: Iterable[str]) -> str | None:
    names = list(names)
    return next((k for pattern, k in patterns.items() if any(re.match(pattern, n) for n in names)), None)


def _kind_of_tokenizer(meta: Meta, weights: list[str], inputs_and_outputs: list[str], name: str) -> str:
    """Discrete with levels, a quantizer, or codes; continuous otherwise."""
    config = _object(meta, "config")
    if "levels" in config or "latent_channels" in config:
        return "dv_tokenizer" if "levels" in config else "cv_tokenizer"
    if any("quantizer." in n for n in weights):
        return "dv_tokenizer"
    told = _matching(_INPUTS_AND_OUTPUTS, inputs_and_outputs) or kind_by_name(name)
    return told if told in ("dv_tokenizer", "cv_tokenizer") else "cv_tokenizer"


def _kind_of_document(meta: Meta) -> str | None:
    """The kind of a JSON without tensors."""
    cases = meta.get("cases") or []
    of_a_case = str(next(iter(cases.values() if isinstance(cases, dict) else cases), ""))
    if meta.get("variant") and "model" in meta:
        return "ar"
    if "split_with_overlap" in meta or "linear_blend" in meta:
        return "dd_chunking"
    if "tiny_overrides" in meta or "resolved_real_config" in meta:
        return "dd_dit"
    if "'num_steps'" in of_a_case:
        return "dd_pipeline"
    if "'target'" in of_a_case or any(key.startswith("real_target_") for key in meta):
        return "preprocess"
    if "patch_method" in _object(meta, "config"):
        return "tokenizer"
    if any("config" in _object(meta, key) for key in meta):
        return "ar_real_configs"
    return None


def _object(meta: Meta, key: str) -> Meta:
    value = meta.get(key)
    return value if isinstance(value, dict) else {}


def _read(stem: Path, directory: Mapping[str, ParityFile]) -> ParityFile:
    meta_path, tensor_path = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    meta: Any = {}
    tensors: Tensors = {}
    problem = ""
    try:
        tensors = read_tensors(tensor_path) if tensor_path.is_file() else {}
        meta = json.loads(meta_path.read_text()) if meta_path.is_file() else {}
    except Exception as error:  # json, the checkpoint reader and the file system each raise their own
        problem = f"{stem.name}: {error}"
    if not isinstance(meta, dict):
        meta, problem = {}, f"{meta_path.name} holds no JSON object"
    return ParityFile(stem, meta, tensors, kind_of(meta, tensors, stem.name), directory, problem)
