"""The five networks that run as exported graphs, each stated in one value.

A graph's tensors have the names, types and axes of its model's `config.pbtxt`; axes that depend on
the video or the network are letters, and `ExportGraph.sizes` gives them numbers. Shapes are static:
one graph makes one size of video. Networks are imported where they are loaded: diffusers takes
seconds, and a run that finds every file unchanged needs none of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosmos_export.parity import Tolerance
from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.checkpoints.folder import CheckpointFolder, Component
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import CONTEXT_FRAMES, CONTEXT_LATENTS, VideoGeometry, latent_frames

Sizes = Mapping[str, int]
Example = Callable[[tuple[int, ...], torch.Generator], Tensor]

EXAMPLE_SEED = 20250101
_EXAMPLE_PROMPT_TOKENS = 24
_TOKENS = 64000
_TEXT_TOKENS = 32000


@dataclass(frozen=True)
class GraphTensor:
    """One input or output of a graph; an axis is a number or a letter of `ExportGraph.sizes`."""

    name: str
    axes: tuple[int | str, ...]
    dtype: torch.dtype

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The axes as numbers."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)


@dataclass(frozen=True)
class ExportGraph:
    """Everything an export of one network needs to know.

    Args:
        name: of the Triton model, and of the files.
        component: the published network it is made of.
        letters: further axis letters, from the component's architecture.
        inputs: in the order of the module's arguments.
        examples: one maker of example values per input.
        output: what the module returns.
        precision: type of the weights and activations of the TensorRT plan. Diffusion network and T5
            as published (T5 overflows in float16). The tokenizers' decoders likewise: that moves pixels
            by 0.6 levels on average. Their encoder stays in float32, because bfloat16 changes 4 % of
            the token ids (benchmarks/results/tokenizer_precision_cpu.json), and it is small.
        tolerance: of ONNX Runtime, which computes in float32.
        plan_tolerance: of the plan on a GPU, which computes in `precision` (float32 means TF32 there).
        companions: patterns of further files in the component's directory that the graph holds.
    """

    name: str
    component: Callable[[CheckpointFolder], Component[Any]]
    letters: Callable[[Any], Sizes]
    inputs: tuple[GraphTensor, ...]
    examples: tuple[Example, ...]
    output: GraphTensor
    precision: torch.dtype
    tolerance: Tolerance
    plan_tolerance: Tolerance
    companions: tuple[str, ...] = ()

    def load(self, folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
        """The stage's module with its weights in the given type."""
        from cosmos_triton.runtimes.stage_modules import STAGE_MODULES

        return STAGE_MODULES[self.name].load(folder, dtype)

    def files(self, folder: CheckpointFolder) -> tuple[Path, ...]:
        """Every file whose content the graph holds."""
        component = self.component(folder)
        beside = (path for pattern in self.companions for path in sorted(component.directory.glob(pattern)))
        return (*component.files, *beside)

    def sizes(self, folder: CheckpointFolder, geometry: VideoGeometry) -> Sizes:
        """A number for every axis letter."""
        return geometry_letters(geometry) | dict(self.letters(self.component(folder).architecture))

    def example_inputs(self, sizes: Sizes) -> dict[str, Tensor]:
        """Inputs for tracing and for comparing runtimes; always the same."""
        return self.example_inputs_of({tensor.name: tensor.shape(sizes) for tensor in self.inputs})

    def example_inputs_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The same for given shapes by name."""
        generator = torch.Generator().manual_seed(EXAMPLE_SEED)
        return {
            tensor.name: example(shapes[tensor.name], generator).to(tensor.dtype)
            for tensor, example in zip(self.inputs, self.examples, strict=True)
        }


def folder_geometry(folder: CheckpointFolder) -> VideoGeometry:
    """The one size of video that the folder's autoregressive models make.

    Raises:
        CheckpointError: there is none, or they differ.
    """
    found = {
        component.architecture.geometry: component.architecture.name
        for component in folder.components
        if isinstance(component.architecture, AutoregressiveArchitecture)
    }
    if not found:
        raise CheckpointError(
            f"{folder.path} holds no autoregressive model to take the size of the video from; "
            "give one with --video, e.g. --video 33x640x1024"
        )
    if len(found) > 1:
        raise CheckpointError(
            f"the models of {folder.path} make videos of different size ({', '.join(found.values())}); "
            "choose one with --video, e.g. --video 33x640x1024"
        )
    return next(iter(found))


def geometry_letters(geometry: VideoGeometry) -> dict[str, int]:
    """F frames, T latent frames; H, W pixels; h, w tokens; y, x latent rows and columns."""
    _, rows, columns = geometry.token_shape
    latent_rows, latent_columns = geometry.latent_plane
    return {
        "F": geometry.frames,
        "T": latent_frames(geometry.frames),
        "H": geometry.height,
        "W": geometry.width,
        "h": rows,
        "w": columns,
        "y": latent_rows,
        "x": latent_columns,
    }


def _pixels(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


def _unit_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _ids_below(count: int) -> Example:
    def example(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(0, count, shape, generator=generator)

    return example


def _prompt_mask(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.arange(shape[0]) < _EXAMPLE_PROMPT_TOKENS


def _middle_timestep(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.full(shape, 0.25)  # c_noise of sigma = e


def _prompt_rows(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    rows = torch.randn(shape, generator=generator)
    return rows * _prompt_mask(shape, generator).unsqueeze(1)


GRAPHS: dict[str, ExportGraph] = {
    graph.name: graph
    for graph in (
        ExportGraph(
            name="video_encoder",
            component=CheckpointFolder.discrete_tokenizer,
            letters=lambda architecture: {},
            inputs=(GraphTensor("frames", (3, CONTEXT_FRAMES, "H", "W"), torch.float32),),
            examples=(_pixels,),
            output=GraphTensor("tokens", (CONTEXT_LATENTS, "h", "w"), torch.int32),
            precision=torch.float32,
            tolerance=Tolerance(differing=1e-3),
            plan_tolerance=Tolerance(differing=0.02),
        ),
        ExportGraph(
            name="video_decoder",
            component=CheckpointFolder.discrete_tokenizer,
            letters=lambda architecture: {},
            inputs=(GraphTensor("tokens", ("T", "h", "w"), torch.int32),),
            examples=(_ids_below(_TOKENS),),
            output=GraphTensor("frames", ("F", "H", "W", 3), torch.uint8),
            precision=torch.bfloat16,
            tolerance=Tolerance(),
            plan_tolerance=Tolerance(differing=0.25),
        ),
        ExportGraph(
            name="text_encoder",
            component=CheckpointFolder.text_encoder,
            letters=lambda architecture: {"L": architecture.max_tokens, "C": architecture.dim},
            inputs=(
                GraphTensor("input_ids", ("L",), torch.int32),
                GraphTensor("attention_mask", ("L",), torch.int32),
            ),
            examples=(_ids_below(_TEXT_TOKENS), _prompt_mask),
            output=GraphTensor("text_embeddings", ("L", "C"), torch.float32),
            precision=torch.bfloat16,
            tolerance=Tolerance(relative=1e-4),
            plan_tolerance=Tolerance(relative=3e-2),
        ),
        ExportGraph(
            name="diffusion_denoiser",
            component=CheckpointFolder.diffusion_decoder,
            letters=lambda architecture: {
                "V": architecture.window,
                "Z": architecture.latent_channels,
                "C": architecture.text_dim,
            },
            inputs=(
                GraphTensor("latents", ("Z", "V", "y", "x"), torch.float32),
                GraphTensor("timestep", (1,), torch.float32),
                GraphTensor("tokens", ("V", "h", "w"), torch.int32),
                GraphTensor("text_embeddings", (512, "C"), torch.float32),
            ),
            examples=(_unit_normal, _middle_timestep, _ids_below(_TOKENS), _prompt_rows),
            output=GraphTensor("predictions", (2, "Z", "V", "y", "x"), torch.float32),
            precision=torch.bfloat16,
            tolerance=Tolerance(relative=1e-4),
            plan_tolerance=Tolerance(relative=5e-2),
        ),
        ExportGraph(
            name="latent_decoder",
            component=CheckpointFolder.continuous_tokenizer,
            letters=lambda architecture: {"Z": architecture.latent_channels},
            inputs=(GraphTensor("latents", ("Z", "T", "y", "x"), torch.float32),),
            examples=(_unit_normal,),
            output=GraphTensor("frames", ("F", "H", "W", 3), torch.uint8),
            precision=torch.bfloat16,
            tolerance=Tolerance(),
            plan_tolerance=Tolerance(differing=0.25),
            companions=("mean_std.*",),
        ),
    )
}
