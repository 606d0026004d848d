"""`StageModel`: the base of every synchronous model.py.

    tensors in → stage(inputs) → tensors out

The stage is a callable that sees arrays only. What it returns is a `StageResult`: output arrays, and its
section of the report. Each request is answered on its own: one that fails gets its error and its neighbours
go on.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from cosmos_triton.serving import report as reports
from cosmos_triton.serving.failures import error_response, is_lasting
from cosmos_triton.serving.heartbeat import Heartbeat
from cosmos_triton.serving.logs import log_to_triton
from cosmos_triton.serving.metrics import Metrics, observe_stages
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.tensors import read_inputs, response
from cosmos_triton.serving.values import from_bytes, to_bytes

Stage = Callable[[Mapping[str, NDArray[Any]]], StageResult]
"""What a synchronous stage does to one request: arrays by tensor name → outputs and report section."""


class StageModel:
    """A Triton Python model around one `Stage`; subclasses name the stage's factory."""

    stage: ClassVar[Callable[[StageSettings[Any]], Stage]]
    reports: ClassVar[bool] = True  # whether the model has a `report` output

    def initialize(self, args: Mapping[str, str]) -> None:
        """Build the stage; an exception here keeps the model from becoming ready."""
        self._name = args["model_name"]
        log_to_triton(self._name)
        self._heartbeat = Heartbeat.of(self._name)
        self._metrics = Metrics()
        self._stage = self._build(StageSettings.from_triton(args))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Sign out."""
        self._heartbeat.stop()

    def _build(self, settings: StageSettings[Any]) -> Stage:
        return type(self).stage(settings)

    def _answer(self, request: Any) -> Any:
        try:
            inputs = read_inputs(request)
            before = reports.parse(to_bytes(inputs, "report"))  # a bad one is refused before any work
            began = time.time()
            result = self._stage(inputs)
            if not self.reports:
                return response(result.outputs)
            report = reports.add_stage(before, self._name, result.section, began, time.time())
            if result.last:
                report = reports.finish(report)
                observe_stages(self._metrics, report)
            return response({**result.outputs, "report": from_bytes(reports.dump(report))})
        except Exception as error:
            if is_lasting(error):
                self._heartbeat.cannot_go_on()
            return error_response(error, self._name)


class MeteredStageModel(StageModel):
    """A `StageModel` whose stage publishes metrics of its own: its factory is handed the `Metrics` too."""

    stage: ClassVar[Callable[[StageSettings[Any], Metrics], Stage]]  # type: ignore[assignment]

    def _build(self, settings: StageSettings[Any]) -> Stage:
        return type(self).stage(settings, self._metrics)
