"""The report: JSON that travels along a request and says what was done to it.

Every Python stage takes the report of the stage before it, adds its section and the time it
began and ended, and hands it on. Engine stages (TensorRT, ONNX Runtime) cannot write; their
time is the gap between their neighbours, transfers included.

A client that calls a stage itself may send any bytes as a report, so it is checked where it comes in.
"""

import json
import re
from typing import Any, NoReturn

from cosmos_triton.errors import InvalidInput
from cosmos_triton.pipeline import ENSEMBLES

Report = dict[str, Any]

TIMELINE = "_timeline"
TOTAL = "total"

MAX_BYTES = 65_536  # a whole one has about a thousand
MAX_STAGES = 50

_STAGE_NAME = re.compile(r"[a-z0-9_]{1,64}")
_MAX_DEPTH = 8  # a whole one has four
_MAX_TIME = 1e11  # seconds since the epoch: the year 5138

GAPS = {stages: gap for ensemble in ENSEMBLES.values() for stages, gap in ensemble.gaps.items()}
"""The networks that run between two stages that report one after the other."""


def parse(raw: bytes | None) -> Report:
    """The report so far; empty where there is none.

    Raises:
        InvalidInput: it is not what a stage would have written.
    """
    if raw is None:
        return {}
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"report has {len(raw)} bytes; at most {MAX_BYTES} are taken")
    try:
        report = json.loads(raw, parse_constant=_refuse)
        dump(report)  # raises for what JSON's grammar lets through and UTF-8 or a number cannot hold
        depth = _depth(report)
    except (ValueError, RecursionError):
        raise InvalidInput("report is not valid JSON in UTF-8") from None
    if not isinstance(report, dict):
        raise InvalidInput(f"report is a JSON {type(report).__name__}, not an object")
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"report is nested more than {_MAX_DEPTH} deep")
    _check_timeline(report.get(TIMELINE, []))
    return report


def dump(report: Report) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(report, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _check_timeline(timeline: object) -> None:
    if not isinstance(timeline, list) or len(timeline) > MAX_STAGES:
        raise InvalidInput(f"report has a {TIMELINE} that is not a list of at most {MAX_STAGES} stages")
    for entry in timeline:
        if not (isinstance(entry, list) and len(entry) == 3 and _is_visit(*entry)):
            raise InvalidInput(f"report has a {TIMELINE} entry that is not [stage, began, ended]")


def _is_visit(stage: object, began: object, ended: object) -> bool:
    named = isinstance(stage, str) and _STAGE_NAME.fullmatch(stage) is not None
    return named and _is_time(began) and _is_time(ended)


def _is_time(value: object) -> bool:
    """Whether it is a number of seconds since the epoch."""
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value < _MAX_TIME


def merge(report: Report, section: Report) -> Report:
    """`report` with `section` added, nested objects merged key by key."""
    merged = dict(report)
    for key, value in section.items():
        present = merged.get(key)
        nested = isinstance(present, dict) and isinstance(value, dict)
        merged[key] = merge(report[key], value) if nested else value
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
            gap = GAPS.get((before, stage))
            if gap is not None:
                seconds[gap] = round(began - previous_end, 4)
        seconds[stage] = round(ended - began, 4)
    if timeline:
        seconds[TOTAL] = round(timeline[-1][2] - timeline[0][1], 4)
    return {**{key: value for key, value in report.items() if key != TIMELINE}, "seconds": seconds}
