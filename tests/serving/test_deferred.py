"""A deferred request is answered once, whatever happens."""

import gc
import json

import numpy as np
import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.errors import Cancelled
from cosmos_triton.serving.deferred import DeferredModel, Reply

INTERNAL = pb_utils.TritonError.INTERNAL


def test_the_first_answer_wins(request_of) -> None:
    request = request_of()
    reply = Reply(request, "ar_sampler")
    reply.result({"tokens": np.arange(3)})
    reply.error(RuntimeError("too late"))
    reply.result({"tokens": np.arange(4)})
    (answer,) = request.sender.answers
    assert answer.arrays()["tokens"].tolist() == [0, 1, 2]


def test_a_dropped_reply_answers_internal(request_of) -> None:
    request = request_of()
    reply = Reply(request, "ar_sampler")
    del reply
    gc.collect()
    (answer,) = request.sender.answers
    assert answer.error().code() == INTERNAL
    assert answer.error().message() == "ar_sampler failed; the server's log has the details"


def test_an_answer_that_cannot_be_built_becomes_an_error(request_of) -> None:
    request = request_of()
    Reply(request, "ar_sampler").result({"tokens": "no array"})
    (answer,) = request.sender.answers
    assert answer.error().code() == INTERNAL


def test_an_answered_reply_lets_go_of_its_request(request_of) -> None:
    reply = Reply(request_of(), "ar_sampler")
    reply.result({})
    assert reply._request is None


class Echo:
    """Answers some requests at once, keeps others, refuses the rest."""

    def __init__(self, settings, metrics) -> None:
        self.kept, self.closed = [], False

    def submit(self, inputs, reply, request_id, timeout_us) -> None:
        if request_id == "withdrawn":
            raise Cancelled("it was withdrawn")
        if request_id == "kept":
            self.kept.append(reply)
        else:
            reply.result({"doubled": inputs["value"] * 2, "timeout_us": np.array([timeout_us])})

    def close(self) -> None:
        self.closed = True


class Model(DeferredModel):
    stage = Echo


@pytest.fixture
def model() -> Model:
    model = Model()
    arguments = {"model_name": "echo", "model_config": json.dumps({}), "model_instance_kind": "CPU"}
    model.initialize(arguments)
    return model


def test_a_model_hands_on_each_request_and_one_that_is_refused_does_not_harm_the_others(
    model: Model, request_of
) -> None:
    value = np.array([4])
    first = request_of("first", 7, value=value)
    refused = request_of("withdrawn", value=value)
    kept = request_of("kept", value=value)
    last = request_of("last", value=value)
    assert model.execute([first, refused, kept, last]) is None
    assert {name: array.tolist() for name, array in first.sender.answers[0].arrays().items()} == {
        "doubled": [8],
        "timeout_us": [7],
    }
    assert refused.sender.answers[0].error().code() == pb_utils.TritonError.CANCELLED
    assert refused.sender.answers[0].error().message() == "it was withdrawn"
    assert kept.sender.answers == []
    assert len(last.sender.answers) == 1
    model._stage.kept.pop().result({"doubled": value})
    assert len(kept.sender.answers) == 1


def test_the_stage_is_closed_with_its_model(model: Model) -> None:
    stage = model._stage
    model.finalize()
    assert stage.closed
