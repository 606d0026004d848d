"""What became of each clip of a batch: `results.jsonl`, and what a later run can take from it."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cosmos_client._clips import BadLine, Clip
from cosmos_client._errors import UsageError, reason_of
from cosmos_client._files import atomic_file, is_regular

OK, FAILED, CANCELLED = "ok", "failed", "cancelled"


@dataclass(frozen=True)
class ClipResult:
    """What became of one line; `results.jsonl` holds these fields."""

    line: int
    visual_input: str | None
    prompt: str | None
    status: str  # "ok", "failed" or "cancelled"
    output: str | None = None
    error: str | None = None
    seconds: float | None = None
    seed: int | None = None  # the one in force; the one asked for where there is no report
    request_id: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)  # options of the line and of the command
    report: dict[str, Any] | None = field(default=None, repr=False)


def result_of(line: Clip | BadLine, status: str, *, error: str | None = None) -> ClipResult:
    """A result of `line` that says what was asked."""
    if isinstance(line, BadLine):
        return ClipResult(line.line, None, None, status, error=error or line.error)
    return ClipResult(
        line.line,
        line.visual_input,
        line.options.get("prompt"),
        status,
        error=error,
        seed=line.options.get("seed"),
        asked=line.options,
    )


class Record:
    """The results so far, in the list's order, kept in a file that is whole at every moment.

    Args:
        path: the file.
        lines: the whole list.
        kept: results of an earlier run that still hold.
    """

    def __init__(self, path: Path, lines: Sequence[Clip | BadLine], kept: Mapping[int, ClipResult]) -> None:
        self._path = path
        self._lines = lines
        self._results: dict[int, ClipResult] = {}
        self._texts: dict[int, bytes] = {}
        for result in kept.values():
            self._keep(result)

    def add(self, result: ClipResult) -> None:
        """Keeps one more result; raises `OutputError`."""
        self._keep(result)
        self._write()

    def settle(self, futures: Mapping[int, "Future[ClipResult]"]) -> None:
        """Adds what is done but not yet added, and the rest as cancelled; raises `OutputError`."""
        for line in self._lines:
            if line.line not in self._results:
                future = futures.get(line.line)
                self._keep(future.result() if future and _succeeded(future) else not_sent(line))
        self._write()

    def results(self) -> list[ClipResult]:
        """All results so far, in the list's order."""
        return [self._results[line] for line in sorted(self._results)]

    def _write(self) -> None:
        with atomic_file(self._path) as file:
            file.writelines(text for _, text in sorted(self._texts.items()))

    def _keep(self, result: ClipResult) -> None:
        self._results[result.line] = result
        self._texts[result.line] = json.dumps(vars(result)).encode() + b"\n"


def not_sent(line: Clip | BadLine) -> ClipResult:
    """The result of a line that was given up before it was sent."""
    return result_of(line, CANCELLED, error="not sent")


def _succeeded(future: "Future[ClipResult]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


@dataclass(frozen=True)
class Earlier:
    """What `results.jsonl` says of an earlier run.

    Attributes:
        kept: the results that hold for the present list, by line.
        forgotten: whether the file holds more than those: videos that were made for another list,
            or with other options.
    """

    kept: dict[int, ClipResult]
    forgotten: bool


def read_earlier(
    path: Path, lines: Sequence[Clip | BadLine], outputs: Mapping[int, Path], *, resume: bool
) -> Earlier:
    """Looks for what an earlier run into the same folder has done already.

    A result holds if its video is there, under the name that the list gives it now, and was made
    from the same `visual_input` with the same options; on which line that stood does not matter.

    Args:
        path: the `results.jsonl` of the earlier run; there may be none.
        lines: the present list.
        outputs: where the video of each clip goes.
        resume: False takes nothing over.

    Raises:
        UsageError: there is a file and it cannot be read.
    """
    made, damaged = _made(path)
    kept: dict[int, ClipResult] = {}
    for clip in lines:
        if resume and isinstance(clip, Clip):
            output = outputs[clip.line]
            result = next((result for result in made if _holds(result, clip, output)), None)
            if result is not None:
                made.remove(result)
                kept[clip.line] = replace(result, line=clip.line, output=str(output))
    return Earlier(kept, forgotten=bool(made) or damaged)


def _holds(result: ClipResult, clip: Clip, output: Path) -> bool:
    return (
        result.visual_input == clip.visual_input
        and result.asked == clip.options
        and Path(result.output or "").name == output.name
        and is_regular(output)
    )


def _made(path: Path) -> tuple[list[ClipResult], bool]:
    """The results whose status is ok, and whether something in the file is no result."""
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return [], False
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
    results = [_result_from(text) for text in texts]
    return [r for r in results if r is not None and r.status == OK], None in results


def _result_from(text: bytes) -> ClipResult | None:
    try:
        entry = json.loads(text)
        return ClipResult(**{name.name: entry[name.name] for name in fields(ClipResult)})
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def set_aside(path: Path) -> Path:
    """Gives `path` a name of its own, so that nothing takes its place; returns that name.

    Raises:
        UsageError: it cannot be renamed.
    """
    number = 1
    while (other := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    try:
        return path.rename(other)
    except OSError as error:
        raise UsageError(f"cannot keep {path} as {other}: {reason_of(error)}") from error
