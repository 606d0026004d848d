"""What a person sees while videos are made."""

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm  # type: ignore[import-untyped]

from cosmos_client._errors import cannot_write
from cosmos_client._results import OK, ClipResult

_REDRAW_S = 1.0
_LOG_INTERVAL_S = 30.0  # a log gets the bar as a line now and then


@contextmanager
def waiting(text: str, stream: TextIO) -> Iterator[None]:
    """A line with the time gone by, drawn while the block runs; nothing if `stream` is no terminal."""
    if not stream.isatty():
        yield
        return
    done = threading.Event()
    with tqdm(desc=text, bar_format="{desc} {elapsed}", leave=False, file=stream) as line:

        def redraw() -> None:
            while not done.wait(_REDRAW_S):
                line.refresh()

        thread = threading.Thread(target=redraw, name="waiting", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def batch_bar(total: int, source: Path) -> Iterator[Callable[[ClipResult], None]]:
    """A bar on stderr, or a line now and then where that is no terminal.

    The callback takes each result: a video's path goes to stdout, a failure's reason to stderr.

    Args:
        total: how many lines there are to do.
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
            if result.status == OK:
                try:
                    show(str(result.output), sys.stdout)
                    sys.stdout.flush()
                except OSError as error:
                    raise cannot_write("stdout", error) from error
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
