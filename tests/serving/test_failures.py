import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.errors import (
    Blocked,
    Cancelled,
    CheckpointError,
    CosmosError,
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
)
from cosmos_triton.serving.failures import error_response, triton_error

CODES = pb_utils.TritonError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("top_p 2.0 is not in (0, 1]"), CODES.INVALID_ARG),
        (Blocked("prompt_guardrail", "violence", "a word of the list"), CODES.INVALID_ARG),
        (Unavailable("the queue of 32 videos is full"), CODES.UNAVAILABLE),
        (DeadlineExceeded("the request's limit of 2 s passed"), CODES.UNAVAILABLE),
        (Cancelled("request 'a' was cancelled"), CODES.CANCELLED),
        (CheckpointError("model.pt is damaged"), CODES.INTERNAL),
    ],
)
def test_what_is_raised_on_purpose_keeps_its_sentence(error: CosmosError, code: int) -> None:
    told = triton_error(error, "ar_sampler")
    assert (told.code(), told.message()) == (code, str(error))


@pytest.mark.parametrize(
    "error", [ValueError("/srv/secret"), MemoryError(), KeyError("frames"), SystemExit(1)]
)
def test_anything_else_is_ours_and_says_no_more_than_that(error: BaseException, caplog) -> None:
    told = triton_error(error, "ar_sampler")
    assert told.code() == CODES.INTERNAL
    assert told.message() == "ar_sampler failed; the server's log has the details"


def test_a_failed_answer_has_no_tensors() -> None:
    answer = error_response(InvalidInput("no"), "ar_sampler")
    assert answer.has_error()
    assert answer.output_tensors() == []
