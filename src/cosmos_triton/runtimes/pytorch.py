"""A PyTorch module behind the runtimes' interface."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn


class PyTorchRuntime:
    """One network as a module.

    Args:
        module: takes the inputs in order, returns one tensor.
        inputs: names of its positional arguments, in order.
        output: name of what it returns.
        device: where it runs; the module is moved there.
    """

    def __init__(
        self, module: nn.Module, inputs: tuple[str, ...], output: str, device: torch.device | str = "cpu"
    ) -> None:
        self._module = module.to(device)
        self._inputs = inputs
        self._output = output
        self._device = device

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays by input name -> arrays by output name."""
        arguments = [torch.from_numpy(inputs[name]).to(self._device) for name in self._inputs]
        with torch.inference_mode():
            result = self._module(*arguments)
        return {self._output: result.cpu().numpy()}
