"""PyTorch modules behind the runtimes' interface, on a CPU or a GPU."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmos_triton.residency import Residency, empty_cache, weights_of

COMPILE_CACHE_VARIABLE = "COSMOS_COMPILE_CACHE"


class PyTorchRuntime:
    """One network as a module.

    Args:
        module: takes the inputs in order, returns one tensor.
        inputs: names of its positional arguments, in order.
        output: name of what it returns.
        device: where it runs.
        residency: where its weights are between calls.
        blocks: submodules that run one after the other, once each; if there are any, offloaded weights
            stream through the device instead of being there all at once.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[str, ...],
        output: str,
        device: torch.device | str = "cpu",
        residency: Residency = Residency.RESIDENT,
        blocks: Sequence[nn.Module] = (),
    ) -> None:
        self._device = torch.device(device)
        self._module = module
        self._inputs = inputs
        self._output = output
        self._weights = weights_of(module, self._device, residency, blocks)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays by input name -> arrays by output name."""
        return {name: value.cpu().numpy() for name, value in self.run(inputs).items()}

    def run(self, inputs: Mapping[str, NDArray[Any] | Tensor]) -> dict[str, Tensor]:
        """Arrays or tensors, on any device, by input name -> tensors on the runtime's device, complete."""
        with self._weights.present():
            with torch.inference_mode():
                arguments = [as_tensor(inputs[name], self._device) for name in self._inputs]
                result: Tensor = self._module(*arguments)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # the reader may be another process
        empty_cache(self._device)
        return {self._output: result}


def as_tensor(value: "NDArray[Any] | Tensor", device: torch.device) -> Tensor:
    """The value on `device`; an array that may not be written is copied."""
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()
    return torch.as_tensor(value).to(device)


def use_compile_cache() -> Path:
    """Keep what torch.compile makes on disk, so that a restart does not compile again.

    The folder is COSMOS_COMPILE_CACHE, or `~/.cache/cosmos-triton/compile`. Must run before the first
    compilation of the process. Returns the folder.
    """
    folder = os.environ.get(COMPILE_CACHE_VARIABLE) or Path.home() / ".cache" / "cosmos-triton" / "compile"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
