"""What a checkpoint folder holds and which models it can serve, as values to print or to send as JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.checkpoints.folder import CheckpointFolder, Component
from cosmos_triton.checkpoints.published import AUTOREGRESSIVE_FAMILY
from cosmos_triton.errors import CheckpointError
from cosmos_triton.pipeline import ENSEMBLES, STAGES, Ensemble

_GUARDRAIL_DIRECTORIES = {"blocklist", "video_content_safety_filter"}
_CHECKED_AT_ONCE = 1 << 26  # numbers


@dataclass(frozen=True)
class ComponentReport:
    """One network of a folder."""

    component: str
    architecture: str
    directory: str
    files: tuple[str, ...]
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    bytes: int  # of the files
    problem: str


@dataclass(frozen=True)
class EnsembleReport:
    """Whether a model can be served as one of the public ensembles, and if not, why."""

    model: str
    directory: str
    ensemble: str
    reason: str

    @property
    def servable(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class FolderReport:
    """A whole folder."""

    path: str
    components: tuple[ComponentReport, ...]
    ensembles: tuple[EnsembleReport, ...]
    guardrail: str  # the directory that holds NVIDIA's guardrail, or nothing
    unreadable: tuple[str, ...]

    @property
    def servable(self) -> bool:
        """Whether anything can be served."""
        return any(ensemble.servable for ensemble in self.ensembles)


def inspect_folder(where: Path | CheckpointFolder, verify: bool = False) -> FolderReport:
    """Looks at every weight file's header.

    Args:
        where: the folder's path, or the folder where somebody has looked at it already.
        verify: also read every number, and report tensors that are not finite or all zero.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = where if isinstance(where, CheckpointFolder) else CheckpointFolder(where)
    return FolderReport(
        path=str(folder.path),
        components=tuple(_component(component, verify) for component in folder.components),
        ensembles=tuple(_ensembles(folder)),
        guardrail=_guardrail(folder.path),
        unreadable=tuple(file.problem for file in folder.unreadable),
    )


def _component(component: Component[Any], verify: bool) -> ComponentReport:
    tensors = component.tensors
    problems = [component.problem, *([_doubtful(component)] if verify else [])]
    return ComponentReport(
        component=component.family.name,
        architecture=component.architecture.name,
        directory=str(component.directory),
        files=tuple(file.name for file in component.files),
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        bytes=sum(file.stat().st_size for file in component.files),
        problem="; ".join(filter(None, problems)),
    )


def _doubtful(component: Component[Any]) -> str:
    """Tensors whose numbers cannot be trained weights."""
    infinite = [name for name, tensor in component.tensors.items() if not _all(torch.isfinite, tensor)]
    # Whole matrices of zeros are what a hole in a file reads as; a bias may be zero.
    empty = [
        name
        for name, tensor in component.tensors.items()
        if tensor.dim() > 1 and _all(lambda piece: piece == 0, tensor)
    ]
    parts = (("not finite", infinite), ("all zero", empty))
    return "; ".join(f"{len(names)} {title}: {', '.join(names)}" for title, names in parts if names)


def _all(test: Callable[[Tensor], Tensor], tensor: Tensor) -> bool:
    return all(bool(test(piece).all()) for piece in torch.split(tensor.flatten(), _CHECKED_AT_ONCE))


def _ensembles(folder: CheckpointFolder) -> Iterator[EnsembleReport]:
    models = [c for c in folder.components if c.family is AUTOREGRESSIVE_FAMILY]
    for model in models:
        architecture: AutoregressiveArchitecture = model.architecture
        for ensemble in ENSEMBLES.values():
            if ensemble.kind is architecture.kind:
                reason = model.damage or _other_release(folder, model)
                reason = reason or _first_failure(_checks(ensemble, folder, architecture))
                yield EnsembleReport(architecture.name, str(model.directory), ensemble.name, reason)
    if not models:
        reason = _first_failure([folder.autoregressive])
        yield EnsembleReport("", "", next(iter(ENSEMBLES)), reason)


def _other_release(folder: CheckpointFolder, model: Component[Any]) -> str:
    release = folder.release_of(model)
    others = {folder.release_of(c) for c in folder.components if c.family is not AUTOREGRESSIVE_FAMILY}
    if release is None or release is folder.release or folder.release not in others:
        return ""
    return (
        f"{model.directory} is of release {release.name}, but the folder's other networks are taken from "
        f"release {folder.release.name}: keep releases in folders of their own"
    )


Check = Callable[[], object]


def _checks(
    ensemble: Ensemble, folder: CheckpointFolder, model: AutoregressiveArchitecture
) -> Sequence[Check]:
    """What the ensemble's stages need beside the model: that it is there, and fits the model."""
    stages = [STAGES[name] for name in ensemble.stages]

    def tokens() -> None:
        _same("tokens", folder.discrete_tokenizer().architecture.codebook_size, model.vocabulary)

    def text() -> None:
        _same("width of text embeddings", folder.text_encoder().architecture.dim, model.text_dim)

    def decoder() -> None:
        found = folder.diffusion_decoder().architecture
        _same("tokens of the diffusion decoder", found.vocabulary, model.vocabulary)
        if model.text_dim is not None:
            _same("text width of the diffusion decoder", found.text_dim, model.text_dim)

    there = [partial(folder.component, stage.network.component) for stage in stages if stage.network]
    fits: dict[str, Sequence[Check]] = {
        "video_encoder": [tokens],
        "video_decoder": [tokens],
        "text_encoder": [text],
        "text_tokenizer": [folder.text_tokenizer],
        "diffusion_decoder": [decoder, folder.default_text],
        "latent_decoder": [folder.mean_std],
    }
    return [*there, *(check for stage in stages for check in fits.get(stage.name, []))]


def _same(what: str, found: int, needed: int | None) -> None:
    if found != needed:
        raise CheckpointError(f"{what}: {found} instead of the model's {needed}")


def _first_failure(checks: Sequence[Check]) -> str:
    for check in checks:
        try:
            check()
        except CheckpointError as error:
            return str(error)
    return ""


def _guardrail(path: Path) -> str:
    for directory in sorted(path.rglob("blocklist")):
        if all((directory.parent / name).is_dir() for name in _GUARDRAIL_DIRECTORIES):
            return str(directory.parent)
    return ""
