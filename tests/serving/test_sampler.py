"""ar_sampler in front of its engine, which is a stand-in here: what is asked of it and what comes back."""

import json

import numpy as np
import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.architectures import Kind
from cosmos_triton.autoregressive.engine import Generation
from cosmos_triton.errors import Cancelled, InvalidInput, Unavailable
from cosmos_triton.serving.deferred import Reply
from cosmos_triton.serving.stages.autoregressive import Sampler
from cosmos_triton.serving.values import from_bytes
from support.tiny_autoregressive import architecture


class Engine:
    """Keeps what it is asked; `finish` answers the oldest."""

    def __init__(self, kind: Kind) -> None:
        self.architecture = architecture(video2world=kind is Kind.VIDEO2WORLD)
        self.requests, self._done, self.cancelled, self.stopped = [], [], [], False

    def submit(self, request, on_done) -> None:
        self.requests.append(request)
        self._done.append(on_done)

    def cancel(self, request_id: str) -> bool:
        self.cancelled.append(request_id)
        return any(request.id == request_id for request in self.requests)

    def finish(self, outcome) -> None:
        self._done.pop(0)(outcome)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def sampler() -> Sampler:
    return Sampler("ar_sampler", {kind: Engine(kind) for kind in Kind})


CONTEXT = np.zeros((2, 4, 6), dtype=np.int32)
TEXT = np.zeros((512, 24), dtype=np.float32)


@pytest.fixture
def submit(sampler: Sampler, request_of):
    """Sends tensors; returns the list in which the answer appears."""

    def send(request_id: str = "", timeout_us: int = 0, **arrays: np.ndarray) -> list:
        request = request_of(request_id, timeout_us, **arrays)
        sampler.submit(arrays, Reply(request, "ar_sampler"), request_id, timeout_us)
        return request.sender.answers

    return send


def test_a_video_is_answered_when_it_is_done(sampler: Sampler, submit) -> None:
    report = from_bytes(b'{"input":{"kind":"video"}}')
    answers = submit("a", 2_000_000, context_tokens=CONTEXT, seed=np.array([7]), report=report)
    (asked,) = sampler._engines[Kind.BASE].requests
    assert (asked.id, asked.deadline_s, asked.text_embeddings) == ("a", 2.0, None)
    assert (asked.parameters.seed, asked.parameters.temperature, asked.parameters.top_p) == (7, 1.0, 0.8)
    assert answers == []
    tokens = np.ones((5, 4, 6), dtype=np.int32)
    sampler._engines[Kind.BASE].finish(Generation(tokens, 72, 70, 0.5, 0.25, 3.0))
    outputs = answers[0].arrays()
    assert np.array_equal(outputs["tokens"], tokens)
    written = json.loads(outputs["report"][0])
    assert written["input"] == {"kind": "video"}
    assert (written["model"], written["seed"]) == ("test", 7)
    assert written["autoregressive"]["passes"] == 70
    assert [entry[0] for entry in written["_timeline"]] == ["ar_sampler"]


def test_a_request_with_text_goes_to_the_video2world_engine(sampler: Sampler, submit) -> None:
    submit("a", context_tokens=CONTEXT, text_embeddings=TEXT)
    (asked,) = sampler._engines[Kind.VIDEO2WORLD].requests
    assert tuple(asked.text_embeddings.shape) == (512, 24)
    assert sampler._engines[Kind.BASE].requests == []


def test_a_kind_that_is_not_served_is_unavailable(sampler: Sampler, submit) -> None:
    del sampler._engines[Kind.VIDEO2WORLD]
    with pytest.raises(Unavailable, match="no usable Video2World model"):
        submit("a", context_tokens=CONTEXT, text_embeddings=TEXT)


def test_a_failure_of_the_engine_is_the_answer(sampler: Sampler, submit) -> None:
    answers = submit("a", context_tokens=CONTEXT)
    sampler._engines[Kind.BASE].finish(Cancelled("request 'a' was cancelled after 3 of 72 tokens"))
    assert answers[0].error().code() == pb_utils.TritonError.CANCELLED


@pytest.mark.parametrize(("frames", "latents"), [(None, 2), (9, 2), (1, 1)])
def test_the_users_frames_are_the_context(sampler: Sampler, submit, frames, latents) -> None:
    given = {} if frames is None else {"num_input_frames": np.array([frames])}
    submit("a", context_tokens=CONTEXT, **given)
    assert sampler._engines[Kind.BASE].requests[0].context_tokens.shape == (latents, 4, 6)


@pytest.mark.parametrize("frames", [0, 2, 3, -7, 17, 33, 2**31 - 1, -(2**31)])
def test_another_number_of_frames_is_refused(submit, frames: int) -> None:
    with pytest.raises(InvalidInput, match=f"num_input_frames is {frames}, must be 1 or 9"):
        submit("a", context_tokens=CONTEXT, num_input_frames=np.array([frames]))


def test_a_bad_report_is_refused_before_the_engine_is_asked(sampler: Sampler, submit) -> None:
    with pytest.raises(InvalidInput, match="report is a JSON list, not an object"):
        submit("a", context_tokens=CONTEXT, report=from_bytes(b"[]"))
    assert sampler._engines[Kind.BASE].requests == []


def test_a_request_without_context_is_refused(submit) -> None:
    with pytest.raises(InvalidInput, match="context_tokens is missing"):
        submit("a")


def cancelled(answers: list) -> bool:
    return json.loads(answers[0].arrays()["report"][0])["cancelled"]


def test_a_running_request_is_cancelled_by_its_id(sampler: Sampler, submit) -> None:
    submit("a", context_tokens=CONTEXT)
    assert cancelled(submit("", cancel_id=from_bytes(b"a")))
    assert sampler._engines[Kind.BASE].cancelled == ["a"]
    submit("a", context_tokens=CONTEXT)  # the next one of that id is not refused


def test_a_cancellation_ahead_of_its_request_refuses_it_once(sampler: Sampler, submit) -> None:
    assert not cancelled(submit("", cancel_id=from_bytes(b"a")))
    with pytest.raises(Cancelled, match="request 'a' was cancelled before it reached the sampler"):
        submit("a", context_tokens=CONTEXT)
    submit("a", context_tokens=CONTEXT)
    assert len(sampler._engines[Kind.BASE].requests) == 1


def test_requests_without_an_id_cannot_be_cancelled(sampler: Sampler, submit) -> None:
    submit("", context_tokens=CONTEXT)
    with pytest.raises(InvalidInput, match="cancel_id is empty"):
        submit("", cancel_id=from_bytes(b""))
    assert sampler._engines[Kind.BASE].cancelled == []
    submit("", context_tokens=CONTEXT)
    assert len(sampler._engines[Kind.BASE].requests) == 2


def test_ids_are_bounded(sampler: Sampler, submit) -> None:
    with pytest.raises(InvalidInput, match="cancel_id has 1000000 bytes; at most 128 are taken"):
        submit("", cancel_id=from_bytes(b"x" * 1_000_000))
    with pytest.raises(InvalidInput, match="the request's id has 129 bytes"):
        submit("x" * 129, context_tokens=CONTEXT)
    assert len(sampler._withdrawn) == 0


def test_closing_stops_the_engines(sampler: Sampler) -> None:
    sampler.close()
    assert all(engine.stopped for engine in sampler._engines.values())
