import numpy as np
import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.errors import Unavailable
from cosmos_triton.serving.bls import call


def doubler(request) -> "pb_utils.InferenceResponse":
    """Answers on the GPU, as a TensorRT plan does, unless the caller prefers host memory."""
    (value,) = request.inputs
    preferred = request.preferred_memory
    on_gpu = preferred is None or preferred.kind != pb_utils.TRITONSERVER_MEMORY_CPU
    return pb_utils.InferenceResponse([pb_utils.Tensor("doubled", value.as_numpy() * 2, on_gpu)])


def test_an_answer_made_on_the_gpu_arrives_in_host_memory() -> None:
    pb_utils.InferenceRequest.models["doubler"] = doubler
    assert call("doubler", {"value": np.array([1, 2])}, "doubled").tolist() == [2, 4]


def test_only_the_output_asked_for_is_requested() -> None:
    asked = []

    def record(request):
        asked.append((request.model_name, request.requested_output_names))
        return doubler(request)

    pb_utils.InferenceRequest.models["doubler"] = record
    call("doubler", {"value": np.array([1])}, "doubled")
    assert asked == [("doubler", ["doubled"])]


def test_a_model_that_fails_makes_the_caller_unavailable() -> None:
    error = pb_utils.TritonError("Model 'doubler' is not ready")
    pb_utils.InferenceRequest.models["doubler"] = lambda request: pb_utils.InferenceResponse([], error)
    with pytest.raises(Unavailable, match="doubler did not answer: Model 'doubler' is not ready"):
        call("doubler", {"value": np.array([1])}, "doubled")
