"""What a checkpoint folder lets a server serve."""

from collections.abc import Callable
from typing import Any

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.checkpoints.folder import CheckpointFolder, Component
from cosmos_triton.checkpoints.published import AUTOREGRESSIVE_FAMILY
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry

Models = dict[bool, Component[AutoregressiveArchitecture]]
"""The autoregressive models to serve: False → the base model, True → the Video2World model."""


def autoregressive_models(folder: CheckpointFolder, base: str = "", video2world: str = "") -> Models:
    """The base model and the Video2World model of the folder; either may be absent, not both.

    Args:
        folder: where to look.
        base, video2world: preset or directory name, where the folder holds several of a kind.

    Raises:
        CheckpointError: there is none, one is damaged, or there are several and none is named.
    """
    present = {
        component.architecture.is_video2world
        for component in folder.components
        if component.family is AUTOREGRESSIVE_FAMILY
    }
    if not present:
        folder.autoregressive()  # raises, and says what to fetch
    chosen = {False: base, True: video2world}
    return {kind: folder.autoregressive(chosen[kind] or None, video2world=kind) for kind in sorted(present)}


def geometry(models: Models) -> VideoGeometry:
    """The video size that all `models` make.

    Raises:
        CheckpointError: they differ.
    """
    sizes = {component.architecture.geometry: component for component in models.values()}
    if len(sizes) > 1:
        made = ", ".join(f"{c.architecture.name} {g.height}x{g.width}" for g, c in sizes.items())
        raise CheckpointError(f"one server makes one size of video, but these models differ: {made}")
    return next(iter(sizes))


def servable_ensembles(folder: CheckpointFolder) -> tuple[list[str], dict[str, str]]:
    """Ensembles whose checkpoints are all there, and for each other one the reason why not."""
    needs: dict[str, list[Callable[[], Any]]] = {}
    tokens: list[Callable[[], Any]] = [folder.discrete_tokenizer]
    full = [folder.diffusion_decoder, folder.aux_context, folder.continuous_tokenizer, folder.mean_std]
    text = [folder.text_encoder, folder.text_tokenizer]
    for name, video2world in (("cosmos_base", False), ("cosmos_video2world", True)):
        model = [lambda kind=video2world: _kind(folder, video2world=kind)]
        prompt = text if video2world else []
        needs[name] = [*model, *tokens, *prompt, *full]
        needs[f"{name}_fast"] = [*model, *tokens, *prompt]
    reasons = {ensemble: _first_problem(checks) for ensemble, checks in needs.items()}
    served = [ensemble for ensemble, reason in reasons.items() if not reason]
    return served, {ensemble: reason for ensemble, reason in reasons.items() if reason}


def _kind(folder: CheckpointFolder, *, video2world: bool) -> None:
    """Whether a model of this kind is there; which of several is taken is the sampler's setting."""
    whole = [
        component
        for component in folder.components
        if component.family is AUTOREGRESSIVE_FAMILY
        and component.architecture.is_video2world is video2world
        and not component.problem
    ]
    if not whole:
        folder.autoregressive(video2world=video2world)  # raises, and says why


def _first_problem(checks: list[Callable[[], Any]]) -> str:
    for check in checks:
        try:
            check()
        except CheckpointError as error:
            return str(error)
    return ""
