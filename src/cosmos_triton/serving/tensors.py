"""Triton's tensors ⇄ numpy arrays and plain values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def read_inputs(request: Any) -> Arrays:
    """All input tensors that the request carries, by name. Absent optional inputs have no key."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def response(outputs: Mapping[str, NDArray[Any]]) -> Any:
    """A response with these output tensors."""
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()]
    )
