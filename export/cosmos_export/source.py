"""One network of a checkpoint folder, as an export takes it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosmos_triton.checkpoints import CheckpointFolder, Component, catalog
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import Network
from cosmos_triton.runtimes import example_inputs


@dataclass(frozen=True)
class Source:
    """A network, the folder its weights are in, and the size of video it is for."""

    network: Network
    folder: CheckpointFolder
    video: VideoGeometry

    @cached_property
    def component(self) -> Component[Any]:
        """The published network it is made of."""
        return self.folder.component(self.network.component)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose content a graph of the network holds."""
        component = self.component
        patterns = self.network.companions
        beside = (path for pattern in patterns for path in sorted(component.directory.glob(pattern)))
        return (*component.files, *beside)

    @property
    def sizes(self) -> dict[str, int]:
        """A number for every axis letter."""
        return self.network.sizes(self.video, self.component.architecture)

    def example_inputs(self) -> dict[str, Tensor]:
        """Inputs for tracing and for comparing runtimes; always the same."""
        return example_inputs(self.network, self.sizes)

    def load(self, dtype: torch.dtype) -> nn.Module:
        """The module with its weights in the given type."""
        from cosmos_triton.runtimes import load_module  # seconds, needed for what changed only

        return load_module(self.network, self.folder, dtype)


def video_of(folder: CheckpointFolder) -> VideoGeometry:
    """The one size of video that the folder's autoregressive models make.

    Raises:
        CheckpointError: there is none, or they differ.
    """
    try:
        return catalog.geometry(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or give the size with --video, e.g. --video 33x640x1024") from None
