"""Custom metrics on Triton's /metrics, behind one lock.

Two rules of Triton's Python stub make this module necessary: metric calls from two threads at
once, and any metric call that fails, take the whole server down. So every call holds the lock,
values are checked before they are passed on, and histograms are never read.
"""

import threading
from typing import Any


class Metrics:
    """The metric families of one stage process. Keep the object for as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, tuple[Any, str]] = {}
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}

    def count(self, name: str, description: str, amount: float = 1.0, **labels: str) -> None:
        """Add `amount` (≥ 0; anything else is dropped) to a counter."""
        with self._lock:
            if amount >= 0:
                self._get(name, description, "counter", labels).increment(amount)

    def set(self, name: str, description: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            if value == value:  # NaN would be refused
                self._get(name, description, "gauge", labels).set(value)

    def observe(
        self, name: str, description: str, value: float, buckets: tuple[float, ...], **labels: str
    ) -> None:
        """Add one observation to a histogram with these upper bounds."""
        with self._lock:
            if value == value:
                self._get(name, description, "histogram", labels, buckets).observe(value)

    def _get(
        self,
        name: str,
        description: str,
        kind: str,
        labels: dict[str, str],
        buckets: tuple[float, ...] | None = None,
    ) -> Any:
        key = (name, tuple(sorted(labels.items())))
        if key not in self._series:
            family = self._family(name, description, kind)
            extra = {} if buckets is None else {"buckets": list(buckets)}
            self._series[key] = family.Metric(labels=labels, **extra)
        return self._series[key]

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
