"""Triton's tensors ⇄ numpy arrays on the host and PyTorch tensors on the GPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def read_inputs(request: Any) -> Arrays:
    """All input tensors that the request carries, by name. Absent optional inputs have no key.

    A tensor on the GPU stays there and comes as a PyTorch tensor; only models that set
    FORCE_CPU_ONLY_INPUT_TENSORS to `no` are given any.
    """
    return {tensor.name(): _value(tensor) for tensor in request.inputs()}


def response(outputs: Mapping[str, Any]) -> Any:
    """A response with these output tensors: numpy arrays, or PyTorch tensors wherever they are."""
    return pb_utils.InferenceResponse(
        output_tensors=[_tensor(name, value) for name, value in outputs.items()]
    )


def _value(tensor: Any) -> Any:
    if tensor.is_cpu():
        return tensor.as_numpy()
    from torch.utils.dlpack import from_dlpack  # only stages on a GPU come here, and they have PyTorch

    return from_dlpack(tensor.to_dlpack())


def _tensor(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return pb_utils.Tensor(name, np.ascontiguousarray(value))
    if value.is_cuda:  # complete: whoever made it has waited for the device
        from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

        return pb_utils.Tensor.from_dlpack(name, to_dlpack(value.contiguous()))
    return pb_utils.Tensor(name, value.contiguous().numpy())
