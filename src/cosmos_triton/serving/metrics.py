"""Custom metrics on Triton's /metrics, behind one lock.

Two rules of Triton's Python stub make this module necessary: metric calls from two threads at once, and any
metric call that fails, take the whole server down. So every call holds the lock, values and labels are
checked before they are passed on, and histograms are never read. What a client may have written becomes a
label only if it is one of a closed set.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.pipeline import STAGES
from cosmos_triton.serving.report import GAPS, TOTAL, Report

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper bounds of every histogram of seconds."""

MAX_SERIES = 500  # of one process; a series never goes away
OTHER = "other"

_MAX_LABEL = 100  # characters
_SPANS = frozenset((*STAGES, *GAPS.values(), TOTAL))

_log = logging.getLogger(__name__)


class Metrics:
    """The metric families of one stage process. Keep the object for as long as the process lives.

    What Triton would not take (a value that is not finite, a label that is no short text, a series too many)
    is dropped with a line in the log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, tuple[Any, str]] = {}
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}

    def count(self, name: str, description: str, amount: float = 1.0, **labels: str) -> None:
        """Add `amount` (≥ 0) to a counter."""
        if amount >= 0:
            self._do(name, description, "counter", amount, labels, lambda series: series.increment(amount))

    def set(self, name: str, description: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._do(name, description, "gauge", value, labels, lambda series: series.set(value))

    def observe(self, name: str, description: str, seconds: float, **labels: str) -> None:
        """Add one observation to a histogram of seconds."""
        self._do(name, description, "histogram", seconds, labels, lambda series: series.observe(seconds))

    def _do(
        self,
        name: str,
        description: str,
        kind: str,
        value: float,
        labels: dict[str, str],
        act: Callable[[Any], None],
    ) -> None:
        with self._lock:
            if not math.isfinite(value) or not all(map(_fits, labels.values())):
                _log.error("%s is not counted: Triton takes no value %r with labels %r", name, value, labels)
                return
            key = (name, tuple(sorted(labels.items())))
            if key not in self._series and len(self._series) >= MAX_SERIES:
                _log.error("%s is not counted: this process has %d series already", name, MAX_SERIES)
                return
            if key not in self._series:
                buckets = {"buckets": list(SECONDS)} if kind == "histogram" else {}
                family = self._family(name, description, kind)
                self._series[key] = family.Metric(labels=labels, **buckets)
            act(self._series[key])

    def _family(self, name: str, description: str, kind: str) -> Any:
        # Imported here, so that stages which are handed a `Metrics` can be imported outside Triton.
        import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

        if name not in self._families:
            kinds = pb_utils.MetricFamily
            constant = {"counter": kinds.COUNTER, "gauge": kinds.GAUGE, "histogram": kinds.HISTOGRAM}[kind]
            self._families[name] = (kinds(name=name, description=description, kind=constant), kind)
        family, known_kind = self._families[name]
        if known_kind != kind:
            raise TypeError(f"metric {name} is a {known_kind}, not a {kind}")
        return family


def observe_stages(metrics: Metrics, report: Report) -> None:
    """Publish what each stage took of a finished video, those that answer late included.

    The report may be a client's own: a model or stage that this program does not know is counted as `other`.
    """
    for stage, seconds in report["seconds"].items():
        metrics.observe(
            "cosmos_stage_seconds",
            "Seconds of a finished video by stage; `total` from the first stage to the last",
            seconds,
            model=_known(report.get("model"), AUTOREGRESSIVE),
            stage=_known(stage, _SPANS),
        )


def _known(label: object, known: Mapping[str, object] | frozenset[str]) -> str:
    return label if isinstance(label, str) and label in known else OTHER


def _fits(label: object) -> bool:
    return isinstance(label, str) and len(label) <= _MAX_LABEL and label.isprintable()
