"""From published tensors to a ready module: build on the meta device, rename, assign."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from cosmos_triton.checkpoints import assign_strictly

Renames = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs of `re.sub`, applied in order to every published name."""

Module = TypeVar("Module", bound=nn.Module)


def rename(name: str, renames: Renames) -> str:
    """The module's name of the tensor published as `name`."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def without(tensors: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """`tensors` less those whose names start with one of `prefixes`."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


def load(
    build: Callable[[], Module],
    tensors: Mapping[str, Tensor],
    renames: Renames,
    *,
    what: str,
    dtype: torch.dtype | None = None,
) -> Module:
    """A module with its weights, in evaluation mode and without gradients.

    Args:
        build: makes the module; called under the meta device, so it allocates nothing.
        tensors: every tensor of the module, under published names.
        renames: published names → the module's names.
        what: names the network in errors.
        dtype: type of the weights; None keeps the checkpoint's.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        module = build()
    assign_strictly(
        module, {rename(name, renames): tensor for name, tensor in tensors.items()}, what=what, dtype=dtype
    )
    return module.eval().requires_grad_(False)
