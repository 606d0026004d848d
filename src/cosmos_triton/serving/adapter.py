"""`StageModel`: the base of every synchronous model.py.

    tensors in → stage(inputs) → tensors out

The stage is a callable that sees numpy arrays only. What it returns is a `StageResult`: output
arrays, and its section of the report. Each request is answered on its own: one that fails gets
its error and its neighbours go on.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from cosmos_triton.serving import report as reports
from cosmos_triton.serving.failures import error_response
from cosmos_triton.serving.logs import log_to_triton
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.tensors import read_inputs, response
from cosmos_triton.serving.values import from_bytes, to_bytes

_STAGE_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Stage(Protocol):
    """What a synchronous stage does to one request."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """Arrays by tensor name → outputs by tensor name and the report section."""

    def close(self) -> None:
        """Release what the stage holds."""


class StageModel:
    """A Triton Python model around one `Stage`; subclasses name the stage's factory."""

    stage: ClassVar[Callable[[StageSettings, Metrics], Stage]]
    reports: ClassVar[bool] = True  # whether the model has a `report` output

    def initialize(self, args: Mapping[str, str]) -> None:
        """Build the stage; an exception here keeps the model from becoming ready."""
        self._name = args["model_name"]
        log_to_triton(self._name)
        self._metrics = Metrics()
        self._stage = type(self).stage(StageSettings.from_triton(args), self._metrics)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Release the stage."""
        self._stage.close()

    def _answer(self, request: Any) -> Any:
        try:
            inputs = read_inputs(request)
            began = time.time()
            result = self._stage(inputs)
            if not self.reports:
                return response(result.outputs)
            before = reports.parse(to_bytes(inputs, "report"))
            report = reports.add_stage(before, self._name, result.section, began, time.time())
            if result.last:
                report = reports.finish(report)
                self._observe(report)
            return response({**result.outputs, "report": from_bytes(reports.dump(report))})
        except Exception as error:
            return error_response(error, self._name)

    def _observe(self, report: Mapping[str, Any]) -> None:
        """Publish what each stage took of a finished video, those that answer late included."""
        for stage, seconds in report["seconds"].items():
            self._metrics.observe(
                "cosmos_stage_seconds",
                "Seconds of a finished video by stage; `total` from the first stage to the last",
                seconds,
                _STAGE_SECONDS,
                model=report.get("model", ""),
                stage=stage,
            )
