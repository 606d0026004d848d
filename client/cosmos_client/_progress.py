"""What a person sees while videos are made."""

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm  # type: ignore[import-untyped]

from cosmos_client._batch import ClipResult

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_INTERVAL_S = 0.2
_LOG_INTERVAL_S = 30.0  # a log gets the bar as a line now and then
_CLEAR_LINE = "\r\x1b[K"


class Waiting:
    """A line with the seconds gone by, drawn while the block runs; nothing if it is no terminal."""

    def __init__(self, text: str, stream: TextIO) -> None:
        self._text = text
        self._stream = stream
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="waiting", daemon=True)

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _draw(self) -> None:
        begin, turn = time.monotonic(), 0
        while not self._done.is_set():
            sign = _FRAMES[turn % len(_FRAMES)]
            self._stream.write(f"{_CLEAR_LINE}{sign} {self._text} {time.monotonic() - begin:.0f} s ")
            self._stream.flush()
            turn += 1
            self._done.wait(_INTERVAL_S)
        self._stream.write(_CLEAR_LINE)
        self._stream.flush()


@contextmanager
def batch_bar(total: int, source: Path) -> Iterator[Callable[[ClipResult], None]]:
    """A bar on stderr, or a line now and then where that is no terminal.

    The callback takes each result: a video's path goes to stdout, a failure's reason to stderr.

    Args:
        total: how many lines there are.
        source: the file they come from, named in failures as `source:line`.
    """
    on_terminal = sys.stderr.isatty()
    failed, last_logged = 0, time.monotonic()
    with tqdm(total=total, unit="clip", file=sys.stderr if on_terminal else io.StringIO()) as bar:

        def show(line: str, stream: TextIO) -> None:
            if on_terminal:
                bar.write(line, file=stream)
            else:
                print(line, file=stream, flush=True)

        def on_result(result: ClipResult) -> None:
            nonlocal failed, last_logged
            if result.status == "ok":
                show(str(result.output), sys.stdout)
                sys.stdout.flush()
            else:
                failed += 1
                bar.set_postfix(failed=failed, refresh=False)
                name = "" if result.visual_input is None else f"{result.visual_input}: "
                show(f"{source}:{result.line}: {name}{one_line(result.error)}", sys.stderr)
            bar.update()
            if not on_terminal and (bar.n == total or time.monotonic() - last_logged > _LOG_INTERVAL_S):
                last_logged = time.monotonic()
                show(str(bar), sys.stderr)

        yield on_result


def one_line(text: str | None) -> str:
    """`text` without its line breaks, so that one failure stays one line of a log."""
    return " ".join((text or "").split())
