"""Calls from one stage to another inside the server (business logic scripting)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
from numpy.typing import NDArray

from cosmos_triton.errors import Unavailable


def call(model: str, inputs: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
    """Run `model` on `inputs` and return its tensor `output`.

    The answer is asked for in host memory: otherwise it lies where the called model made it, and that of a
    TensorRT plan lies on the GPU, where numpy cannot read it.

    Raises:
        Unavailable: the called model failed or is not ready; its own message is in the log.
    """
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=[output],
        inputs=[pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise Unavailable(f"{model} did not answer: {response.error().message()}")
    array: NDArray[Any] = pb_utils.get_output_tensor_by_name(response, output).as_numpy()
    return array
