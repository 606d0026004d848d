"""The report: JSON that travels along a request and says what was done to it.

Every Python stage takes the report of the stage before it, adds its section and the time it
began and ended, and hands it on. Engine stages (TensorRT, ONNX Runtime) cannot write; their
time is the gap between their neighbours, transfers included.
"""

import json
from typing import Any

from cosmos_triton.pipeline import ENSEMBLES

Report = dict[str, Any]

TIMELINE = "_timeline"

# The networks that run between two stages that report one after the other.
_GAPS = {stages: gap for ensemble in ENSEMBLES.values() for stages, gap in ensemble.gaps.items()}


def parse(raw: bytes | None) -> Report:
    """The report so far; empty where there is none."""
    return {} if raw is None else json.loads(raw)


def dump(report: Report) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(report, ensure_ascii=False, separators=(",", ":")).encode()


def merge(report: Report, section: Report) -> Report:
    """`report` with `section` added, nested objects merged key by key."""
    merged = dict(report)
    for key, value in section.items():
        present = merged.get(key)
        merged[key] = merge(present, value) if isinstance(present, dict) else value
    return merged


def add_stage(report: Report, stage: str, section: Report, began: float, ended: float) -> Report:
    """The report after `stage` ran from `began` to `ended` (seconds since the epoch)."""
    timeline = [*report.get(TIMELINE, []), [stage, began, ended]]
    return {**merge(report, section), TIMELINE: timeline}


def finish(report: Report) -> Report:
    """Turn the timeline into `seconds` per stage, in order, with the total."""
    timeline = report.get(TIMELINE, [])
    seconds: dict[str, float] = {}
    for index, (stage, began, ended) in enumerate(timeline):
        if index:
            before, _, previous_end = timeline[index - 1]
            gap = _GAPS.get((before, stage))
            if gap is not None:
                seconds[gap] = round(began - previous_end, 4)
        seconds[stage] = round(ended - began, 4)
    if timeline:
        seconds["total"] = round(timeline[-1][2] - timeline[0][1], 4)
    return {**{key: value for key, value in report.items() if key != TIMELINE}, "seconds": seconds}
