"""prompt_guardrail and video_guardrail."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from cosmos_triton.errors import Blocked, ConfigurationError
from cosmos_triton.guardrails import (
    GuardrailSettings,
    decode_prompt,
    load_prompt_guardrail,
    load_video_guardrail,
)
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import from_bytes, to_bytes

_POSTURES = ("full", "built-in", "disabled")


class PromptGuardrailStage:
    """Lets a prompt through, or raises Blocked."""

    def __init__(self, settings: StageSettings, metrics: Metrics) -> None:
        self._guardrail = load_prompt_guardrail(_guardrail_settings(settings))
        self._verdicts = _Verdicts(settings.model, metrics)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`prompt` BYTES [1] → `safe_prompt` BYTES [1], the same text."""
        prompt = decode_prompt(to_bytes(inputs, "prompt") or b"")
        with self._verdicts:
            verdict = self._guardrail.check(prompt)
        section = {"guardrails": {"prompt": verdict.as_dict()}}
        return StageResult({"safe_prompt": from_bytes(prompt.encode())}, section)

    def close(self) -> None:
        """Nothing to release."""


class VideoGuardrailStage:
    """Lets a video through with its faces blurred, or raises Blocked."""

    def __init__(self, settings: StageSettings, metrics: Metrics) -> None:
        self._guardrail = load_video_guardrail(_guardrail_settings(settings))
        self._verdicts = _Verdicts(settings.model, metrics)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`frames` UINT8 [33,H,W,3] → `safe_frames` of the same shape."""
        with self._verdicts:
            frames, verdict = self._guardrail.apply(inputs["frames"])
        return StageResult({"safe_frames": frames}, {"guardrails": {"video": verdict.as_dict()}})

    def close(self) -> None:
        """Nothing to release."""


class _Verdicts:
    """Counts what leaves its block: allowed, blocked, or failed (a guardrail that raised)."""

    def __init__(self, stage: str, metrics: Metrics) -> None:
        self._stage = stage
        self._metrics = metrics

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        verdict = "allowed" if error is None else "blocked" if isinstance(error, Blocked) else "failed"
        category = error.category if isinstance(error, Blocked) else ""
        self._metrics.count(
            "cosmos_guardrail_verdicts_total",
            "Guardrail verdicts by stage, verdict and category",
            stage=self._stage,
            verdict=verdict,
            category=category,
        )


def _guardrail_settings(settings: StageSettings) -> GuardrailSettings:
    posture = settings.text("posture", "full")
    if posture not in _POSTURES:
        raise ConfigurationError(f"{settings.model}: posture={posture!r} is none of {', '.join(_POSTURES)}")
    return GuardrailSettings(
        posture=posture,
        checkpoint_dir=settings.checkpoint_dir,
        device=settings.device,
        offload=settings.flag("offload", default=False),
    )
