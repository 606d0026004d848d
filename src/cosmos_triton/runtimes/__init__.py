"""One callable over whatever runs a network: arrays by input name -> arrays by output name."""

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray


class Runtime(Protocol):
    """A network that is ready to run."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Arrays by input name -> arrays by output name."""
