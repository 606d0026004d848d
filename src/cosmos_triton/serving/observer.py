"""What the engine does → Triton's /metrics."""

from cosmos_triton.autoregressive import Generation
from cosmos_triton.serving.metrics import Metrics


class EngineMetrics:
    """Implements `EngineObserver`; every series is labelled with the model's name."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Count a request's prefix."""
        count = self._metrics.count
        count("cosmos_ar_prefill_tokens_total", "Context tokens processed", tokens, model=self._model)
        self._metrics.observe(
            "cosmos_ar_prefill_seconds",
            "Seconds from slot to last context token processed",
            seconds,
            model=self._model,
        )

    def decoded(self, videos: int, tokens: int, seconds: float) -> None:
        """Count one pass over all running videos."""
        count = self._metrics.count
        count("cosmos_ar_tokens_total", "Video tokens generated", tokens, model=self._model)
        count("cosmos_ar_passes_total", "Forward passes that generated tokens", 1, model=self._model)
        count("cosmos_ar_video_passes_total", "Forward passes summed over videos", videos, model=self._model)

    def finished(self, outcome: Generation | BaseException) -> None:
        """Count a request by how it ended."""
        result = "done" if isinstance(outcome, Generation) else type(outcome).__name__
        self._metrics.count(
            "cosmos_ar_videos_total", "Requests by outcome", 1, model=self._model, outcome=result
        )
        if isinstance(outcome, Generation):
            self._metrics.observe(
                "cosmos_ar_decode_seconds",
                "Seconds from last context token to last generated one",
                outcome.decode_seconds,
                model=self._model,
            )
            self._metrics.observe(
                "cosmos_ar_queue_seconds",
                "Seconds from arrival to a slot",
                outcome.queue_seconds,
                model=self._model,
            )

    def occupied(self, active: int, queued: int, cache_use: float) -> None:
        """Show what is in flight."""
        self._metrics.set("cosmos_ar_active_videos", "Videos in a cache slot", active, model=self._model)
        self._metrics.set("cosmos_ar_queued_videos", "Videos that wait for a slot", queued, model=self._model)
        self._metrics.set(
            "cosmos_ar_cache_use_ratio", "Share of cache rows in use", cache_use, model=self._model
        )
