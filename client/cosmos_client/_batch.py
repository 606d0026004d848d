"""Many clips from one JSON Lines file: reading it, naming the videos, sending, keeping the record."""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cosmos_client._errors import CosmosClientError, RequestCancelled, UsageError
from cosmos_client._files import atomic_file
from cosmos_client._world import World

OPTIONS = ("prompt", "seed", "temperature", "top_p", "num_input_frames")
"""What a line may say besides `visual_input`: the arguments of `CosmosClient.generate`."""


@dataclass(frozen=True)
class Clip:
    """One line of the file that can be sent."""

    line: int  # counted from 1
    visual_input: str  # as the line says it
    path: Path
    options: dict[str, Any]
    unknown: tuple[str, ...] = ()  # fields of the line that mean nothing here


@dataclass(frozen=True)
class BadLine:
    """One line of the file that cannot be sent, and why."""

    line: int
    error: str


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
    report: dict[str, Any] | None = field(default=None, repr=False)


def read_lines(path: Path, defaults: dict[str, Any]) -> list[Clip | BadLine]:
    """Reads the clips of a JSON Lines file: `{"visual_input": "a.mp4", "prompt": "...", "seed": 1}`.

    Args:
        path: the file. A `visual_input` that is not found from the working directory is looked for
            beside it. Blank lines count as lines but are no clips.
        defaults: options for lines that do not set them.

    Raises:
        UsageError: the file cannot be read or has no lines. A line that cannot be used is no error.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise UsageError(f"{path} has no lines")
    return [_read_line(number, line, path.parent, defaults) for number, line in numbered]


def _read_line(number: int, line: bytes, folder: Path, defaults: dict[str, Any]) -> Clip | BadLine:
    try:
        return parse_line(number, line, folder, defaults)
    except UsageError as error:
        return BadLine(number, str(error))


def parse_line(number: int, line: bytes, folder: Path, defaults: dict[str, Any]) -> Clip:
    """One line as a clip; raises `UsageError`."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the line is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise UsageError(f"the line is not a JSON object but {type(entry).__name__}")
    visual_input = entry.get("visual_input")
    if not isinstance(visual_input, str) or not visual_input:
        raise UsageError(f"visual_input must be the path of a file, not {visual_input!r}")
    given = {name: entry[name] for name in OPTIONS if entry.get(name) is not None}
    unknown = tuple(sorted(set(entry) - {"visual_input", *OPTIONS}))
    return Clip(number, visual_input, _find(visual_input, folder), defaults | given, unknown)


def _find(visual_input: str, folder: Path) -> Path:
    path = Path(visual_input)
    try:
        return path if path.exists() else folder / path
    except (OSError, ValueError):  # a name no file can have: sending it says so
        return path


def name_outputs(clips: Sequence[Clip], folder: Path) -> dict[int, Path]:
    """The video's path for each clip by line: the clip's stem, numbered where two would be equal.

    Names depend on the file alone, not on which clips succeed. No video takes the place of a clip,
    whatever `folder` is.
    """
    taken = {_fold(clip.path) for clip in clips}
    names: dict[int, Path] = {}
    for clip in clips:
        stem = Path(clip.visual_input).stem
        candidate, copy = folder / f"{stem}.mp4", 2
        while _fold(candidate) in taken:
            candidate, copy = folder / f"{stem}-{copy}.mp4", copy + 1
        taken.add(_fold(candidate))
        names[clip.line] = candidate
    return names


def _fold(path: Path) -> str:
    """Equal for two spellings of one file, also where the file system ignores case."""
    try:
        return os.path.realpath(path).casefold()
    except ValueError:  # a NUL in the name: sending it says so
        return str(path).casefold()


def run_batch(
    lines: Sequence[Clip | BadLine],
    generate: Callable[[Clip, str], World],
    *,
    outputs: dict[int, Path],
    results: Path,
    concurrency: int,
    on_result: Callable[[ClipResult], None],
    stop: Callable[[], None],
) -> list[ClipResult]:
    """Sends every clip, `concurrency` at a time, and returns what became of each line, in order.

    Args:
        generate: makes the world of a clip, under a request id.
        outputs: where the video of each line goes.
        results: this file is written anew, whole, after every clip.
        on_result: called in this thread as each line is done.
        stop: makes the calls of `generate` that are under way return soon.

    An interruption (Ctrl-C) calls `stop`, puts the rest into `results` as cancelled, and goes on as
    it is.
    """
    record = _Record(results, lines)
    stopping = threading.Event()

    def send(line: Clip | BadLine) -> ClipResult:
        if isinstance(line, BadLine):
            return ClipResult(line.line, None, None, "failed", error=line.error)
        return _not_sent(line) if stopping.is_set() else _send(line, generate, outputs[line.line])

    futures: dict[int, Future[ClipResult]] = {}
    with ThreadPoolExecutor(concurrency, thread_name_prefix="clip") as pool:
        try:
            for line in lines:
                futures[line.line] = pool.submit(send, line)
            for future in as_completed(futures.values()):
                record.add(future.result())
                on_result(future.result())
        except BaseException:
            stopping.set()
            stop()
            pool.shutdown(cancel_futures=True)
            record.finish(futures)
            raise
    return record.finish(futures)


def _send(clip: Clip, generate: Callable[[Clip, str], World], output: Path) -> ClipResult:
    """Makes one clip's world and saves its video; every failure is a result."""
    request_id = uuid.uuid4().hex
    begin = time.monotonic()
    result = ClipResult(
        clip.line,
        clip.visual_input,
        clip.options.get("prompt"),
        "ok",
        seed=clip.options.get("seed"),
        request_id=request_id,
    )
    try:
        world = generate(clip, request_id)
        world.save(output)
    except (CosmosClientError, OSError) as error:
        status = "cancelled" if isinstance(error, RequestCancelled) else "failed"
        return replace(result, status=status, error=str(error), seconds=_since(begin))
    return replace(
        result,
        output=str(output),
        seconds=_since(begin),
        seed=world.report.get("seed", result.seed),
        report=world.report,
    )


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)


def _not_sent(line: Clip | BadLine) -> ClipResult:
    visual_input, prompt = (
        (line.visual_input, line.options.get("prompt")) if isinstance(line, Clip) else (None, None)
    )
    return ClipResult(line.line, visual_input, prompt, "cancelled", error="not sent")


class _Record:
    """The results so far, in input order, kept in a file that is whole at every moment."""

    def __init__(self, path: Path, lines: Sequence[Clip | BadLine]) -> None:
        self._path = path
        self._lines = lines
        self._results: dict[int, ClipResult] = {}
        self._texts: dict[int, bytes] = {}

    def add(self, result: ClipResult) -> None:
        self._keep(result)
        self._write()

    def finish(self, futures: dict[int, Future[ClipResult]]) -> list[ClipResult]:
        """Adds what is done but not yet added, and the rest as cancelled; results in input order."""
        for line in self._lines:
            if line.line not in self._results:
                future = futures.get(line.line)
                self._keep(future.result() if future and _succeeded(future) else _not_sent(line))
        self._write()
        return [self._results[line.line] for line in self._lines]

    def _keep(self, result: ClipResult) -> None:
        self._results[result.line] = result
        self._texts[result.line] = json.dumps(vars(result)).encode() + b"\n"

    def _write(self) -> None:
        with atomic_file(self._path) as file:
            file.writelines(text for _, text in sorted(self._texts.items()))


def _succeeded(future: Future[ClipResult]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
