"""What a checkpoint folder lets a server serve."""

import logging
from pathlib import Path

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.checkpoints.folder import CheckpointFolder, Component
from cosmos_triton.checkpoints.inspect import inspect_folder
from cosmos_triton.checkpoints.published import AUTOREGRESSIVE_FAMILY
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.server.launch import ENSEMBLES

_log = logging.getLogger(__name__)

Models = dict[bool, Component[AutoregressiveArchitecture]]
"""The autoregressive models to serve: False → the base model, True → the Video2World model."""


def autoregressive_models(folder: CheckpointFolder, base: str = "", video2world: str = "") -> Models:
    """The base model and the Video2World model of the folder; either may be absent, not both.

    A damaged model is named in the log and left out where the other kind is whole, so that the ensembles
    of the whole one are served.

    Args:
        folder: where to look.
        base, video2world: preset or directory name, where the folder holds several of a kind.

    Raises:
        CheckpointError: there is no whole model, or there are several of a kind and none is named.
    """
    kinds = {model.architecture.is_video2world: model.problem for model in _autoregressive(folder)}
    whole = {model.architecture.is_video2world for model in _autoregressive(folder) if not model.problem}
    if not whole:
        folder.autoregressive(video2world=next(iter(kinds), False))  # raises, and says what is wrong
    for kind in kinds.keys() - whole:
        _log.error("the %s model is left out: %s", "Video2World" if kind else "base", kinds[kind])
    chosen = {False: base, True: video2world}
    return {kind: folder.autoregressive(chosen[kind] or None, video2world=kind) for kind in sorted(whole)}


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


def servable_ensembles(path: Path) -> tuple[list[str], dict[str, str]]:
    """Ensembles that the folder can serve, and for each other one the reason why not."""
    reports = inspect_folder(path).ensembles
    served = {report.ensemble for report in reports if report.servable}
    reasons = {report.ensemble: report.reason for report in reports if report.ensemble not in served}
    return [name for name in ENSEMBLES if name in served], reasons


def _autoregressive(folder: CheckpointFolder) -> list[Component[AutoregressiveArchitecture]]:
    return [component for component in folder.components if component.family is AUTOREGRESSIVE_FAMILY]
