"""What a checkpoint folder holds, found by content: tensor names and shapes, not directory names."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from cosmos_triton.architectures import (
    TEXT_ROWS,
    AutoregressiveArchitecture,
    DiffusionDecoderArchitecture,
    Kind,
    TextEncoderArchitecture,
    TokenizerArchitecture,
)
from cosmos_triton.checkpoints.files import SUFFIXES, read_object, read_tensors
from cosmos_triton.checkpoints.published import (
    AUTOREGRESSIVE_FAMILY,
    CONTINUOUS_TOKENIZER_FAMILY,
    DIFFUSION_DECODER_FAMILY,
    DISCRETE_TOKENIZER_FAMILY,
    FAMILIES,
    TEXT_ENCODER_FAMILY,
    Family,
    Shape,
)
from cosmos_triton.checkpoints.releases import COSMOS1, PREDICT1, Release, release_of
from cosmos_triton.checkpoints.strict import describe_differences
from cosmos_triton.errors import CheckpointError
from cosmos_triton.pipeline import ComponentName
from cosmos_triton.sentences import sentence, telling

_DEEPEST = 5  # folders below the checkpoint folder that are searched; the hub's cache needs 4

_HUB_REPOSITORY = "models--"  # how folders of the hub's cache begin

_FETCH = {Kind.BASE: "--models 4B", Kind.VIDEO2WORLD: "--models 5B"}  # the smallest of its kind

TEXT_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
TEXT_TOKENIZER_JSON = ("tokenizer.json", "tokenizer_config.json", "config.json")

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


@dataclass(frozen=True)
class Component(Generic[A_co]):
    """One published network.

    `tensors` are memory-mapped, under canonical published names; when `problem` is empty they are exactly
    those of `architecture`.
    """

    family: Family
    architecture: A_co
    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]
    directory: Path
    problem: str = ""  # how the tensors differ from the architecture's

    @property
    def damage(self) -> str:
        """One sentence on what is wrong, or nothing."""
        return self.problem and f"the {self.family.name} in {self.directory} is damaged: {self.problem}"


@dataclass(frozen=True)
class WeightFile:
    """A file that may hold weights: its tensors under its own names, or why it could not be read."""

    path: Path
    tensors: Mapping[str, Tensor]
    problem: str = ""


class CheckpointFolder:
    """A folder of published checkpoints, in any release's naming.

    Args:
        path: the folder; networks may lie in it or up to five folders deeper.

    Raises:
        CheckpointError: `path` is not a folder, or (from the accessors) what is asked for is missing,
            damaged or there twice.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with telling(self.path, CheckpointError):
            if not self.path.is_dir():
                raise CheckpointError(f"checkpoint folder {self.path} does not exist")

    @cached_property
    def files(self) -> tuple[WeightFile, ...]:
        """Every weight file below the folder, and what is left out by its name, with the reason.

        Only headers are read. Links to files are followed; links to folders are when they stay in this
        folder or lead into the hub's cache.
        """
        return tuple(_weight_files(self.path))

    @cached_property
    def components(self) -> tuple[Component[Any], ...]:
        """Every network, whole or damaged, in the order of the published families."""
        directories: dict[Path, list[WeightFile]] = {}
        for file in self.files:
            directories.setdefault(file.path.parent, []).append(file)
        found = [component for files in directories.values() for component in _components(files)]
        return tuple(sorted(found, key=lambda component: FAMILIES.index(component.family)))

    @cached_property
    def release(self) -> Release:
        """Which release to use where the folder holds one network from both: Predict1 if it has models."""
        models = [c for c in self.components if c.family is AUTOREGRESSIVE_FAMILY and not c.problem]
        releases = {self.release_of(component) for component in models}
        return COSMOS1 if releases == {COSMOS1} else PREDICT1

    def release_of(self, component: Component[Any]) -> Release | None:
        """The release that a component's directory is named after, if any."""
        return release_of(component.directory.relative_to(self.path.parent))

    @property
    def unreadable(self) -> tuple[WeightFile, ...]:
        """The weight files that could not be read, each with its problem."""
        return tuple(file for file in self.files if file.problem)

    def autoregressive(
        self, model: str | None = None, kind: Kind = Kind.BASE
    ) -> Component[AutoregressiveArchitecture]:
        """The transformer: of preset or directory name `model`, or the only one of its kind.

        Args:
            model: e.g. `4B`, `5B`, `tiny-video2world`, or the name of the directory it lies in.
            kind: of model that is wanted; not consulted when `model` is given.
        """
        models = [c for c in self.components if c.family is AUTOREGRESSIVE_FAMILY]
        if model is not None:
            named = [c for c in models if self._is_named(c, model)]
            return self._require_one(named, f"autoregressive model {model}", f"--models {model}")
        fitting = [c for c in models if c.architecture.kind is kind]
        return self._require_one(
            fitting, f"autoregressive {kind} model", _FETCH[kind], "; name one with --model"
        )

    def discrete_tokenizer(self) -> Component[TokenizerArchitecture]:
        """DV8x16x16, from `autoencoder.jit` or from `encoder.jit` and `decoder.jit`."""
        return self._require_family(DISCRETE_TOKENIZER_FAMILY, "discrete tokenizer (DV8x16x16)")

    def continuous_tokenizer(self) -> Component[TokenizerArchitecture]:
        """CV8x8x8, from `autoencoder.jit` or from `encoder.jit` and `decoder.jit`."""
        return self._require_family(CONTINUOUS_TOKENIZER_FAMILY, "continuous tokenizer (CV8x8x8)")

    def diffusion_decoder(self) -> Component[DiffusionDecoderArchitecture]:
        """The diffusion network, `net.*` of its `model.pt`."""
        return self._require_family(DIFFUSION_DECODER_FAMILY, "diffusion decoder")

    def text_encoder(self) -> Component[TextEncoderArchitecture]:
        """The encoder half of T5; its tokenizer's files lie in the same directory."""
        return self._require_family(TEXT_ENCODER_FAMILY, "text encoder (T5-11B)", fetch="--models 5B")

    def component(self, name: ComponentName) -> Component[Any]:
        """The component that a network of the pipeline is made of."""
        found: Component[Any] = getattr(self, name)()
        return found

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the continuous latents: two of [C=16, F latent frames]."""
        tokenizer = self.continuous_tokenizer()
        path = self._companion_file(tokenizer, "mean_std")
        content = read_object(path)
        values = list(content.values() if isinstance(content, Mapping) else content)
        if isinstance(content, Mapping) and {"mean", "std"} <= set(content):
            values = [content["mean"], content["std"]]
        channels = tokenizer.architecture.latent_channels
        if len(values) != 2 or not all(
            isinstance(value, Tensor) and value.numel() and value.numel() % channels == 0 for value in values
        ):
            raise CheckpointError(f"{path} does not hold a mean and a deviation for {channels} channels")
        mean, std = (value.reshape(channels, -1) for value in values)  # [C F] -> [C, F]
        if mean.shape != std.shape:
            raise CheckpointError(f"{path} holds {mean.numel()} means but {std.numel()} deviations")
        if not mean.isfinite().all() or not std.isfinite().all():
            raise CheckpointError(f"{path} holds numbers that are not finite")
        if not (std > 0).all():
            raise CheckpointError(f"{path} holds a deviation that is not above zero")
        return mean, std

    def default_text(self) -> Tensor:
        """The stored text embeddings that base models' diffusion decoding uses: [512, text width]."""
        decoder = self.diffusion_decoder()
        path = self._companion_file(decoder, "aux_vars")
        content = read_object(path)
        text = content.get("context") if isinstance(content, Mapping) else None
        width = decoder.architecture.text_dim
        if not isinstance(text, Tensor) or tuple(text.shape[-2:]) != (TEXT_ROWS, width):
            shape = list(text.shape) if isinstance(text, Tensor) else "no tensor"
            raise CheckpointError(f"{path} has {shape} as `context` instead of [{TEXT_ROWS}, {width}]")
        if not text.isfinite().all():
            raise CheckpointError(f"{path} holds numbers in `context` that are not finite")
        return text.reshape(-1, TEXT_ROWS, width)[0]

    def text_tokenizer(self) -> Path:
        """The directory of the text encoder, when T5's tokenizer is in it."""
        directory = self.text_encoder().directory
        if not any((directory / name).is_file() for name in TEXT_TOKENIZER_FILES):
            raise CheckpointError(
                f"{directory} holds neither {' nor '.join(TEXT_TOKENIZER_FILES)}; "
                f"`cosmos-triton download --models 5B --checkpoint-dir {self.path}` fetches them"
            )
        for path in (directory / name for name in TEXT_TOKENIZER_JSON):
            if path.is_file() and not _is_json(path):
                raise CheckpointError(
                    f"{path} is not JSON; "
                    f"`cosmos-triton download --models 5B --checkpoint-dir {self.path}` fetches it again"
                )
        return directory

    def _is_named(self, component: Component[Any], model: str) -> bool:
        relative = component.directory.relative_to(self.path).as_posix()
        names = {
            component.architecture.name.casefold(),
            relative.casefold(),
            component.directory.name.casefold(),
        }
        return model.casefold() in names

    def _require_family(self, family: Family, what: str, fetch: str = "--models 4B") -> Component[Any]:
        return self._require_one([c for c in self.components if c.family is family], what, fetch)

    def _require_one(
        self, found: Sequence[Component[A]], what: str, fetch: str, advice: str = ""
    ) -> Component[A]:
        """The one whole component of `found`, or an error that says what is there instead."""
        whole = [component for component in found if not component.problem]
        preferred = [component for component in whole if self.release_of(component) is self.release]
        for choice in (whole, preferred):
            if len(choice) == 1:
                return choice[0]
        if whole:
            places = ", ".join(f"{c.directory} ({c.architecture.name})" for c in whole)  # type: ignore[attr-defined]
            raise CheckpointError(f"{self.path} holds more than one {what}: {places}{advice}")
        if found:
            raise CheckpointError(found[0].damage)
        unreadable = "".join(f"; {file.problem}" for file in self.unreadable)
        raise CheckpointError(
            f"{self.path} holds no {what}; "
            f"`cosmos-triton download {fetch} --checkpoint-dir {self.path}` fetches it{unreadable}"
        )

    def _companion_file(self, component: Component[Any], stem: str) -> Path:
        for suffix in (".pt", ".safetensors"):
            path = component.directory / f"{stem}{suffix}"
            if path.is_file():
                return path
        raise CheckpointError(
            f"{component.directory / stem}.pt is missing; "
            f"`cosmos-triton download --models 4B --checkpoint-dir {self.path}` fetches it"
        )


def _is_json(path: Path) -> bool:
    try:
        with telling(path, CheckpointError):
            json.loads(path.read_bytes())
    except ValueError:  # not UTF-8, or not JSON
        return False
    return True


def _weight_files(root: Path) -> Iterator[WeightFile]:
    visited: set[str] = set()
    unlisted: list[OSError] = []
    for directory, below, names in os.walk(root, followlinks=True, onerror=unlisted.append):
        depth = len(Path(directory).relative_to(root).parts)
        below[:] = sorted(name for name in below if not name.startswith(".") and depth < _DEEPEST)
        real = os.path.realpath(directory)
        if real in visited:  # a link to a folder that is searched anyway, or a loop
            below.clear()
            continue
        visited.add(real)
        outside = {name: problem for name in below if (problem := _leads_out(Path(directory, name), root))}
        below[:] = [name for name in below if name not in outside]
        if Path(directory).name == "snapshots":
            below[:] = _referenced_snapshots(Path(directory), below)
        yield from (WeightFile(Path(directory, name), {}, problem) for name, problem in outside.items())
        yield from (_read(Path(directory, name)) for name in sorted(names) if _may_hold_weights(name))
    for error in unlisted:
        yield WeightFile(Path(error.filename), {}, f"{sentence(error)}; what it holds is left out")


def _leads_out(path: Path, root: Path) -> str:
    """Why a folder is not searched: it is a link to a place that nobody meant as checkpoints."""
    if not path.is_symlink():
        return ""
    real = path.resolve()
    in_hubs_cache = any(part.startswith(_HUB_REPOSITORY) for part in real.parts)
    if in_hubs_cache or real.is_relative_to(root.resolve()):
        return ""
    return f"{path} links to {real}, outside {root}, and is not searched: link its weight files instead"


def _referenced_snapshots(directory: Path, revisions: Sequence[str]) -> list[str]:
    """Of several snapshots of one repository in the hub's cache, those that its `refs` name."""
    references = directory.parent / "refs"
    with telling(references, CheckpointError):
        named = {path.read_text().strip() for path in references.rglob("*") if path.is_file()}
    return sorted(named.intersection(revisions)) or list(revisions)


def _may_hold_weights(name: str) -> bool:
    return Path(name).suffix in SUFFIXES and not name.startswith((".", "mean_std.", "aux_vars."))


def _read(path: Path) -> WeightFile:
    try:
        return WeightFile(path, read_tensors(path))
    except CheckpointError as error:
        return WeightFile(path, {}, str(error))


def _components(files: Sequence[WeightFile]) -> Iterator[Component[Any]]:
    """The networks that the files of one directory hold, at most one a family."""
    pieces: dict[Family, dict[Path, dict[str, Tensor]]] = {}
    for file in files:
        family = closest_family(file.tensors)
        if family is not None:
            pieces.setdefault(family, {})[file.path] = family.canonical_tensors(file.tensors)
    unreadable = [file.problem for file in files if file.problem]
    for family, tensors in pieces.items():
        yield _assemble(family, tensors, unreadable)


def closest_family(tensors: Mapping[str, Tensor]) -> Family | None:
    """The kind of network whose tensors these are, whole or in part; None for anything else."""
    scores: dict[tuple[int, int], Family] = {}
    for family in FAMILIES:
        shapes = _shapes(family.canonical_tensors(tensors))
        best = max(_resemblance(shapes, preset) for preset in _presets(family).values())
        if 2 * best[1] > len(shapes):
            scores.setdefault(best, family)
    return scores[max(scores)] if scores else None


def _assemble(family: Family, pieces: Mapping[Path, Mapping[str, Tensor]], unreadable: Sequence[str]) -> Any:
    """The component made of files that complete each other: shards, or an encoder and its decoder.

    Of files that repeat each other (`autoencoder.jit` beside `encoder.jit` and `decoder.jit`) the set
    that comes closest to a preset is taken.
    """
    candidates = [_match_preset(family, joined) for joined in _join_shards(pieces)]
    chosen, differences = min(candidates, key=lambda candidate: len(candidate[1]))
    if not differences:
        return chosen
    return replace(chosen, problem="; ".join([*unreadable, differences]))


def _join_shards(pieces: Mapping[Path, Mapping[str, Tensor]]) -> Iterator[dict[Path, Mapping[str, Tensor]]]:
    """For each file, that file with all others whose tensors are not among those taken before."""
    for first in pieces:
        names = set(pieces[first])
        taken = {first: pieces[first]}
        for path, tensors in pieces.items():
            if names.isdisjoint(tensors):
                taken[path] = tensors
                names |= set(tensors)
        yield taken


def _match_preset(family: Family, pieces: Mapping[Path, Mapping[str, Tensor]]) -> tuple[Component[Any], str]:
    """A component of the preset that the tensors resemble most, and how they differ from it."""
    tensors = {name: tensor for piece in pieces.values() for name, tensor in piece.items()}
    shapes, presets = _shapes(tensors), _presets(family)
    preset = max(presets, key=lambda name: _resemblance(shapes, presets[name]))
    differences = describe_differences(presets[preset], shapes)
    integers = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if integers:
        named = f"{len(integers)} not floating point: {', '.join(integers)}"
        differences = f"{differences}; {named}" if differences else named
    files = tuple(sorted(pieces))
    return Component(family, family.presets[preset], tensors, files, files[0].parent), differences


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@cache
def _presets(family: Family) -> dict[str, dict[str, Shape]]:
    return {name: family.shapes(architecture) for name, architecture in family.presets.items()}


def _resemblance(shapes: Mapping[str, Shape], preset: Mapping[str, Shape]) -> tuple[int, int]:
    """How many tensors have their preset's shape, and how many are known by name at all."""
    known = [name for name in shapes if name in preset]
    return sum(shapes[name] == preset[name] for name in known), len(known)
