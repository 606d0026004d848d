"""What a checkpoint folder lets a server serve."""

import logging
from collections.abc import Mapping
from pathlib import Path

from cosmos_triton.architectures import AutoregressiveArchitecture, Kind
from cosmos_triton.checkpoints.folder import CheckpointFolder, Component
from cosmos_triton.checkpoints.inspect import inspect_folder
from cosmos_triton.checkpoints.published import AUTOREGRESSIVE_FAMILY
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import ENSEMBLES

_log = logging.getLogger(__name__)

Models = dict[Kind, Component[AutoregressiveArchitecture]]
"""The autoregressive models to serve, at most one of a kind."""


def autoregressive_models(folder: CheckpointFolder, names: Mapping[Kind, str] | None = None) -> Models:
    """The base model and the Video2World model of the folder; either may be absent, not both.

    A damaged model is named in the log and left out where the other kind is whole, so that the ensembles
    of the whole one are served.

    Args:
        folder: where to look.
        names: preset or directory name of a kind's model, where the folder holds several; empty or
            absent where it holds one.

    Raises:
        CheckpointError: there is no whole model, or there are several of a kind and none is named.
    """
    problems = {model.architecture.kind: model.problem for model in _autoregressive(folder)}
    whole = {model.architecture.kind for model in _autoregressive(folder) if not model.problem}
    if not whole:
        folder.autoregressive(kind=next(iter(problems), Kind.BASE))  # raises, and says what is wrong
    for kind in problems.keys() - whole:
        _log.error("the %s model is left out: %s", kind, problems[kind])
    names = names or {}
    return {kind: folder.autoregressive(names.get(kind) or None, kind) for kind in Kind if kind in whole}


def geometry(folder: CheckpointFolder) -> VideoGeometry:
    """The video size that all whole autoregressive models of the folder make.

    Raises:
        CheckpointError: they differ, or there is none.
    """
    sizes: dict[VideoGeometry, str] = {
        model.architecture.geometry: model.architecture.name
        for model in _autoregressive(folder)
        if not model.problem
    }
    if not sizes:
        folder.autoregressive()  # raises, and says what is missing or damaged
    if len(sizes) > 1:
        made = ", ".join(f"{name} {size.height}x{size.width}" for size, name in sizes.items())
        raise CheckpointError(f"one server makes one size of video, but these models differ: {made}")
    return next(iter(sizes))


def servable_ensembles(folder: Path | CheckpointFolder) -> tuple[list[str], dict[str, str]]:
    """Ensembles that the folder can serve, and for each other one the reason why not."""
    reports = inspect_folder(folder).ensembles
    served = {report.ensemble for report in reports if report.servable}
    reasons = {report.ensemble: report.reason for report in reports if report.ensemble not in served}
    return [name for name in ENSEMBLES if name in served], reasons


def _autoregressive(folder: CheckpointFolder) -> list[Component[AutoregressiveArchitecture]]:
    return [component for component in folder.components if component.family is AUTOREGRESSIVE_FAMILY]
