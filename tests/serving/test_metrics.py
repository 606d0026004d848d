"""No metric call that Triton would refuse reaches it, since one such call ends the server."""

import threading

import pytest
import triton_python_backend_utils as pb_utils

from cosmos_triton.autoregressive.engine import Generation
from cosmos_triton.errors import Cancelled
from cosmos_triton.serving import metrics as metrics_module
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.observer import EngineMetrics


def test_each_kind_of_series(metric_values) -> None:
    metrics = Metrics()
    metrics.count("videos", "videos made", model="4B")
    metrics.count("videos", "videos made", 3, model="4B")
    metrics.count("videos", "videos made", model="5B")
    metrics.set("active", "videos that run", 2, model="4B")
    metrics.observe("seconds", "how long", 0.5, model="4B")
    assert metric_values("videos", model="4B") == [1, 3]
    assert metric_values("videos", model="5B") == [1]
    assert metric_values("active", model="4B") == [2]
    assert metric_values("seconds", model="4B") == [0.5]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_dropped(value: float) -> None:
    metrics = Metrics()
    metrics.count("videos", "", value)
    metrics.set("active", "", value)
    metrics.observe("seconds", "", value)
    assert pb_utils.MetricFamily.series == {}


def test_a_counter_does_not_fall(metric_values) -> None:
    Metrics().count("videos", "", -1)
    assert metric_values("videos") == []


@pytest.mark.parametrize("label", [123, None, "\ud800", "a\nb", "m" * 1000])
def test_a_label_that_is_no_short_text_is_dropped(label: object) -> None:
    Metrics().count("videos", "", model=label)
    assert pb_utils.MetricFamily.series == {}


def test_one_name_has_one_kind() -> None:
    metrics = Metrics()
    metrics.count("videos", "", 1, model="4B")
    with pytest.raises(TypeError, match="metric videos is a counter, not a gauge"):
        metrics.set("videos", "", 1, model="5B")


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch, metric_values) -> None:
    monkeypatch.setattr(metrics_module, "MAX_SERIES", 3)
    metrics = Metrics()
    for index in range(10):
        metrics.count("videos", "", model=str(index))
    assert len(pb_utils.MetricFamily.series) == 3
    metrics.count("videos", "", model="0")
    assert metric_values("videos", model="0") == [1, 1]


def test_calls_from_two_threads_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = threading.Lock()
    overlaps = []

    def increment(self, value: float) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(value)
            return
        threading.Event().wait(0.001)
        inside.release()

    monkeypatch.setattr("triton_python_backend_utils.MetricFamily.Metric", lambda self, labels: Slow())
    Slow = type("Slow", (), {"increment": increment})
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.count("videos", "") for _ in range(5)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []


def test_what_the_engine_does_is_published_under_the_models_name(metric_values) -> None:
    observer = EngineMetrics(Metrics(), "4B")
    observer.prefilled(5120, 0.25)
    observer.decoded(videos=2, tokens=14, seconds=0.01)
    observer.occupied(active=2, queued=1, cache_use=0.5)
    observer.finished(Generation(None, 7680, 7000, 0.5, 0.25, 22.0))
    observer.finished(Cancelled("withdrawn"))
    assert metric_values("cosmos_ar_prefill_tokens_total", model="4B") == [5120]
    assert metric_values("cosmos_ar_prefill_seconds", model="4B") == [0.25]
    assert metric_values("cosmos_ar_tokens_total", model="4B") == [14]
    assert metric_values("cosmos_ar_passes_total", model="4B") == [1]
    assert metric_values("cosmos_ar_video_passes_total", model="4B") == [2]
    assert metric_values("cosmos_ar_active_videos", model="4B") == [2]
    assert metric_values("cosmos_ar_queued_videos", model="4B") == [1]
    assert metric_values("cosmos_ar_cache_use_ratio", model="4B") == [0.5]
    assert metric_values("cosmos_ar_decode_seconds", model="4B") == [22.0]
    assert metric_values("cosmos_ar_queue_seconds", model="4B") == [0.5]
    assert metric_values("cosmos_ar_videos_total", model="4B", outcome="done") == [1]
    assert metric_values("cosmos_ar_videos_total", model="4B", outcome="Cancelled") == [1]
