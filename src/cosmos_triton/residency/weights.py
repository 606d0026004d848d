"""A network's weights behind one question: `with weights.present():` the network can run.

    resident   they stay on the device
    offload    they wait in pinned host memory. A small network is copied whole; a deep one is streamed: a
               few of its blocks are on the device at a time, the next is copied while one computes

Whatever leaves the device waits for its turn to come back (`turn`), so that two offloaded stages are never
on the card together. Where a block computes longer than it copies (the diffusion decoder: 51 ms against
9 ms), streaming costs no time, and the network never takes more room than a few blocks. The autoregressive
sampler needs a third way, because its CUDA graphs hold addresses: `address_range`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from cosmos_triton.residency.device import empty_cache
from cosmos_triton.residency.pinned import Pack
from cosmos_triton.residency.policy import Residency
from cosmos_triton.residency.stream import BlockStream
from cosmos_triton.residency.turn import turn


class Weights(Protocol):
    """The weights of one network."""

    def present(self) -> AbstractContextManager[None]:
        """A block of code in which the network can run."""


class ResidentWeights:
    """Weights that stay on the device."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        module.to(device)

    def present(self) -> AbstractContextManager[None]:
        """Always so."""
        return nullcontext()


class OffloadedWeights:
    """Weights that are copied to the device whole each time."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._pack = Pack.of(tensors_of(module))
        self._absent = _absent(module)
        point_to(module, self._absent)
        empty_cache(device)

    @contextmanager
    def present(self) -> Iterator[None]:
        """Takes the device's turn and copies the weights in; drops them at the end."""
        with turn(self._device):
            try:
                copied = self._pack.buffer.to(self._device, non_blocking=True)
                point_to(self._module, self._pack.views(copied))
                del copied
                yield
            finally:
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                point_to(self._module, self._absent)
                empty_cache(self._device)


class StreamedWeights:
    """Weights of which all but a stack of blocks is resident; the blocks stream.

    Args:
        module: the network.
        blocks: those of its submodules that run one after the other, once each, in this order.
        device: where it runs.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
        packs = [Pack.of(tensors_of(block)) for block in blocks]
        self._blocks = list(blocks)
        self._absent = [_absent(block) for block in blocks]
        self._drop()
        module.to(device)
        self._stream = BlockStream(packs, device)
        for index, block in enumerate(self._blocks):
            block.register_forward_pre_hook(self._taking(index))
            block.register_forward_hook(lambda *_: self._stream.give_back())

    @contextmanager
    def present(self) -> Iterator[None]:
        """Takes the device's turn and starts the stream; frees its slots at the end."""
        with self._stream.present():
            try:
                yield
            finally:
                self._drop()  # else the slots' memory stays in use

    def _taking(self, index: int) -> "Callable[..., None]":
        return lambda block, *_: point_to(block, self._stream.take(index))

    def _drop(self) -> None:
        for block, absent in zip(self._blocks, self._absent, strict=True):
            point_to(block, absent)


def weights_of(
    module: nn.Module, device: torch.device, residency: Residency, blocks: Sequence[nn.Module] = ()
) -> Weights:
    """Put a module's weights where `residency` wants them; those of `blocks` stream (`StreamedWeights`)."""
    if residency is Residency.RESIDENT:
        return ResidentWeights(module, device)
    if blocks:
        return StreamedWeights(module, blocks, device)
    return OffloadedWeights(module, device)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, saved or not, by name. A parameter of several names is there once."""
    return {
        **{name: parameter.data for name, parameter in module.named_parameters()},
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def point_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the module's parameters and buffers of these names refer to `tensors`."""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if leaf in owner._parameters:
            parameter = owner._parameters[leaf]
            assert parameter is not None
            parameter.data = tensor
        else:
            owner._buffers[leaf] = tensor


def _absent(module: nn.Module) -> dict[str, Tensor]:
    return {name: torch.empty(0, dtype=tensor.dtype) for name, tensor in tensors_of(module).items()}
