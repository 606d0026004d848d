"""A batch of requests through one synchronous model."""

import json

import numpy as np
import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.errors import InvalidInput
from cosmos_triton.serving.adapter import MeteredStageModel, StageModel
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import from_bytes

ARGUMENTS = {"model_name": "halver", "model_config": json.dumps({}), "model_instance_kind": "CPU"}


class Halver:
    def __init__(self, settings) -> None:
        self.seen = 0

    def __call__(self, inputs) -> StageResult:
        self.seen += 1
        value = int(inputs["value"][0])
        if value < 0:
            raise InvalidInput(f"value {value} is negative")
        if value == 13:
            raise ZeroDivisionError("/srv/secret/path")
        return StageResult({"half": inputs["value"] // 2}, {"halved": value}, last=value == 100)


class Model(StageModel):
    stage = Halver


class SilentModel(StageModel):
    stage = Halver
    reports = False


def started(kind: type[StageModel]) -> StageModel:
    model = kind()
    model.initialize(ARGUMENTS)
    return model


def value(number: int) -> np.ndarray:
    return np.array([number])


def test_one_bad_request_among_good_neighbours(request_of) -> None:
    requests = [request_of(value=value(number)) for number in (4, -1, 13, 6)]
    first, refused, failed, last = started(Model).execute(requests)
    assert first.arrays()["half"] == [2]
    assert last.arrays()["half"] == [3]
    assert refused.error().code() == pb_utils.TritonError.INVALID_ARG
    assert refused.error().message() == "value -1 is negative"
    assert failed.error().code() == pb_utils.TritonError.INTERNAL
    assert "secret" not in failed.error().message()
    assert any("/srv/secret/path" in line for level, line in pb_utils.Logger.lines if level == "error")


def test_the_report_is_read_before_any_work(request_of) -> None:
    model = started(Model)
    (answer,) = model.execute([request_of(value=value(4), report=from_bytes(b"[1]"))])
    assert answer.error().code() == pb_utils.TritonError.INVALID_ARG
    assert answer.error().message() == "report is a JSON list, not an object"
    assert model._stage.seen == 0


def test_the_report_grows_by_the_stage(request_of) -> None:
    report = from_bytes(b'{"model":"tiny"}')
    (answer,) = started(Model).execute([request_of(value=value(4), report=report)])
    written = json.loads(answer.arrays()["report"][0])
    ((stage, began, ended),) = written.pop("_timeline")
    assert (stage, written) == ("halver", {"model": "tiny", "halved": 4})
    assert began <= ended


def test_a_model_without_report_has_none(request_of) -> None:
    (answer,) = started(SilentModel).execute([request_of(value=value(4))])
    assert list(answer.arrays()) == ["half"]


def test_the_last_stage_publishes_the_seconds_of_all(request_of, metric_values) -> None:
    report = {"model": "tiny", "_timeline": [["media_decoder", 5.0, 5.5], ["ar_sampler", 6.0, 9.0]]}
    (answer,) = started(Model).execute(
        [request_of(value=value(100), report=from_bytes(json.dumps(report).encode()))]
    )
    assert "_timeline" not in json.loads(answer.arrays()["report"][0])
    seconds = "cosmos_stage_seconds"
    assert metric_values(seconds, model="tiny", stage="media_decoder") == [0.5]
    assert metric_values(seconds, model="tiny", stage="video_encoder") == [0.5]
    assert metric_values(seconds, model="tiny", stage="ar_sampler") == [3.0]
    assert len(metric_values(seconds, model="tiny", stage="total")) == 1


@pytest.mark.parametrize(
    "model", [b'"nobody"', b"123", rb'"\ud83d\ude00"', b'"' + b"m" * 9000 + b'"', b"null"]
)
def test_a_forged_report_makes_no_label_of_its_own(model: bytes, request_of) -> None:
    report = b'{"model":' + model + b',"_timeline":[["forged_stage",0,1]]}'
    (answer,) = started(Model).execute([request_of(value=value(100), report=from_bytes(report))])
    assert answer.arrays()["half"] == [50]
    labels = [dict(labels) for _, labels in pb_utils.MetricFamily.series]
    assert {label["model"] for label in labels} == {"other"}
    assert {label["stage"] for label in labels} == {"other", "total"}


def test_a_stage_with_metrics_of_its_own_is_handed_them(metric_values) -> None:
    class Posture:
        def __init__(self, settings, metrics) -> None:
            metrics.set("cosmos_guardrail_posture", "the posture in force", 1, stage=settings.model)

    class Metered(MeteredStageModel):
        stage = Posture

    started(Metered)
    assert metric_values("cosmos_guardrail_posture", stage="halver") == [1]
