"""prompt_guardrail and video_guardrail."""

import logging
from collections.abc import Mapping
from typing import Any, cast

from numpy.typing import NDArray

from cosmos_triton.guardrails import (
    GuardrailSettings,
    Observer,
    Posture,
    decode_prompt,
    load_prompt_guardrail,
    load_video_guardrail,
)
from cosmos_triton.residency import Residency
from cosmos_triton.serving.checks import check_picture_size
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.parameters import GuardrailParameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import from_bytes, to_bytes

_log = logging.getLogger(__name__)


class PromptGuardrailStage:
    """Lets a prompt through, or raises Blocked."""

    def __init__(self, settings: StageSettings[GuardrailParameters], metrics: Metrics) -> None:
        self._guardrail = load_prompt_guardrail(_guardrail_settings(settings), _observer(settings, metrics))

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`prompt` BYTES [1] → `safe_prompt` BYTES [1], the same text."""
        prompt = decode_prompt(to_bytes(inputs, "prompt") or b"")
        verdict = self._guardrail.check(prompt)
        section = {"guardrails": {"prompt": verdict.as_dict()}}
        return StageResult({"safe_prompt": from_bytes(prompt.encode())}, section)


class VideoGuardrailStage:
    """Lets a video through with its faces blurred, or raises Blocked."""

    def __init__(self, settings: StageSettings[GuardrailParameters], metrics: Metrics) -> None:
        self._guardrail = load_video_guardrail(_guardrail_settings(settings), _observer(settings, metrics))

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`frames` UINT8 [33,H,W,3] → `safe_frames` of the same shape."""
        check_picture_size("frames", inputs["frames"])
        frames, verdict = self._guardrail.apply(inputs["frames"])
        return StageResult({"safe_frames": frames}, {"guardrails": {"video": verdict.as_dict()}})


def _observer(settings: StageSettings[GuardrailParameters], metrics: Metrics) -> Observer:
    """Counts every check's verdict, and shows the posture in force."""
    metrics.set(
        "cosmos_guardrail_posture",
        "1 for the posture in force",
        1,
        stage=settings.model,
        posture=_guardrail_settings(settings).posture,
    )

    def observe(stage: str, check: str, verdict: str) -> None:
        about = "Guardrail checks by stage and verdict (passed, blocked, changed, failed)"
        metrics.count("cosmos_guardrail_checks_total", about, 1, stage=stage, check=check, verdict=verdict)

    return observe


def _guardrail_settings(settings: StageSettings[GuardrailParameters]) -> GuardrailSettings:
    return GuardrailSettings(
        posture=cast(Posture, settings.parameters.posture),  # checked on construction
        checkpoint_dir=settings.checkpoint_dir,
        device=settings.device,
        residency=_residency(settings),
        name=settings.model,
    )


def _residency(settings: StageSettings[GuardrailParameters]) -> Residency:
    """Parameter `residency`, as of every stage; `offload` is the former way to say it."""
    if settings.parameters.residency or not settings.parameters.offload:
        return residency(settings)
    _log.warning("%s: instead of the parameter offload=true, say residency=offload", settings.model)
    return Residency.OFFLOAD
