"""Example inputs of the pipeline's networks: to warm one up, to trace it, to compare its runtimes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cosmos_triton.pipeline import Network, Values

SEED = 20250101
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int32": torch.int32,
    "uint8": torch.uint8,
}
"""PyTorch's types by the names that the pipeline gives them."""

_PROMPT_TOKENS = 24
_VIDEO_TOKENS = 64000
_TEXT_TOKENS = 32000

_Make = Callable[[tuple[int, ...], torch.Generator], Tensor]


def example_inputs(network: Network, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Inputs by name, in the order of the network's arguments; always the same values.

    Args:
        network: whose inputs.
        sizes: a number for every axis letter, see `Network.sizes`.
    """
    return inputs_of_shapes(network, {tensor.name: tensor.shape(sizes) for tensor in network.inputs})


def inputs_of_shapes(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The same for given shapes by name."""
    generator = torch.Generator().manual_seed(SEED)
    return {
        tensor.name: _MAKERS[tensor.values](shapes[tensor.name], generator).to(DTYPES[tensor.dtype])
        for tensor in network.inputs
        if tensor.values is not None
    }


def _pixels(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


def _unit_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _ids_below(count: int) -> _Make:
    def make(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(0, count, shape, generator=generator)

    return make


def _text_mask(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.arange(shape[0]) < _PROMPT_TOKENS


def _text_rows(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    rows = torch.randn(shape, generator=generator)
    return rows * _text_mask(shape, generator).unsqueeze(1)


def _middle_timestep(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.full(shape, 0.25)  # c_noise of sigma = e


_MAKERS: Mapping[Values, _Make] = {
    "pixels": _pixels,
    "unit normal": _unit_normal,
    "token ids": _ids_below(_VIDEO_TOKENS),
    "text ids": _ids_below(_TEXT_TOKENS),
    "text mask": _text_mask,
    "text rows": _text_rows,
    "middle timestep": _middle_timestep,
}
