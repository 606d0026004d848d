"""Seconds per stage of the videos that a server has finished, from its metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.perf_analyzer import Composing
from cosmos_triton.server import loopback

_LINE = re.compile(r"cosmos_stage_seconds_(sum|count)\{([^}]*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class StageTotals:
    """Sum of seconds and number of videos by stage, since the server started."""

    seconds: Mapping[str, float]
    videos: Mapping[str, float]
    models: tuple[str, ...]  # that made them

    def since(self, before: "StageTotals") -> dict[str, float]:
        """Mean seconds per video of the videos finished between the two readings."""
        means = {}
        for stage, videos in self.videos.items():
            finished = videos - before.videos.get(stage, 0.0)
            if finished > 0:
                seconds = self.seconds[stage] - before.seconds.get(stage, 0.0)
                means[stage] = round(seconds / finished, 4)
        return means


def read(metrics_url: str) -> StageTotals:
    """The server's totals now."""
    return parse(loopback.read(metrics_url, timeout_s=30).decode())


def parse(text: str) -> StageTotals:
    """The totals in a Prometheus page; models are added up."""
    totals: dict[str, dict[str, float]] = {"sum": {}, "count": {}}
    models = set()
    for kind, written, value in _LINE.findall(text):
        labels = dict(_LABEL.findall(written))
        stage = labels["stage"]
        models.add(labels["model"])
        totals[kind][stage] = totals[kind].get(stage, 0.0) + float(value)
    return StageTotals(totals["sum"], totals["count"], tuple(sorted(models)))


def busy_seconds(composing: Mapping[str, Composing], reported: Mapping[str, float]) -> dict[str, float]:
    """What each composing model spent on a video, queueing left out.

    Triton's own count, tensors copied in and out included; for a stage that answers late, of which
    Triton sees nothing, what the stage reports.
    """
    return {
        stage: max(count.compute_s, reported.get(stage, 0.0)) if stage == "ar_sampler" else count.compute_s
        for stage, count in composing.items()
    }
