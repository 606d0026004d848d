"""What a tritonserver says and does while its models load.

A stage that cannot be loaded is known long before the server ends: Triton first waits for all others, and
for a stub that ended without a word it waits for ever.
"""

import re
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

_LOADING = re.compile(r'"loading: (?P<model>\S+?):\d+"')
_LOADED = re.compile(r"\"successfully loaded '(?P<model>[^']+)'\"")
_FAILED = re.compile(r"\"failed to load '(?P<model>[^']+)' version \d+: (?:[A-Z][A-Za-z ]+: )?(?P<reason>.*)")
_TRITON = re.compile(  # its lines and tables, and what NVML says where there is no card
    r"[IWEF]\d{4} |\d{4}-\d\d-\d\dT\S+ [IWEF] |[+|]|error: |Error: Failed to initialize NVML|$"
)
_STUB = "triton_python_backend_stub"
_UNEXPLAINED = "is not healthy"  # what Triton says of a stub that ended by itself
_PATIENCE_S = 5.0  # Triton itself notices most stubs that end, within 2 s, and may know why


class Log:
    """Copies what a server writes to where it shall go, and remembers what it says of models."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._sink = sink
        self.seen: set[str] = set()
        self.loading: set[str] = set()
        self.failures: dict[str, str] = {}  # model → reason
        self._words: deque[str] = deque(maxlen=20)
        self._thread = threading.Thread(target=self._copy, args=(source,), daemon=True)
        self._thread.start()

    @property
    def last_words(self) -> str:
        """The last line that was not Triton's own: what a stage wrote before it ended."""
        return self._words[-1] if self._words else ""

    def join(self, timeout_s: float = 5.0) -> None:
        """Wait until everything is copied; the server and its stages have ended."""
        self._thread.join(timeout_s)

    def _copy(self, source: IO[bytes]) -> None:
        with source:
            for line in source:
                self.take(line.decode(errors="replace").rstrip())
                with suppress(OSError, ValueError):  # nobody reads it any more; the server shall go on
                    self._sink.write(line)
                    self._sink.flush()

    def take(self, line: str) -> None:
        """Read one line of the server's log."""
        if found := _LOADING.search(line):
            self.seen.add(found["model"])
            self.loading.add(found["model"])
        elif found := _LOADED.search(line):
            self.loading.discard(found["model"])
        elif found := _FAILED.search(line):
            self.loading.discard(found["model"])
            self.failures[found["model"]] = _first_line(found["reason"])
        elif not _TRITON.match(line):
            self._words.append(line.strip())


class Stubs:
    """The processes of a server's Python stages. They are known by name only while they live, and only if
    they were started as they should be."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._models: dict[int, str] = {}
        self._ended: dict[str, float] = {}  # model → when its process was first seen to have ended

    def look(self) -> None:
        """Notice processes that came and that ended; to be called often."""
        children = _children(self._server)
        for pid in children - self._models.keys():
            model = _model(pid)
            if model or _has_ended(pid):  # one that ended before we looked has no name any more
                self._models[pid] = model
        for pid, model in self._models.items():
            if _has_ended(pid):
                self._ended.setdefault(model, time.monotonic())

    def ended(self, patience_s: float = _PATIENCE_S) -> list[str]:
        """The stages whose process ended at least so long ago."""
        now = time.monotonic()
        return [model for model, when in self._ended.items() if now - when >= patience_s]


def problem(log: Log, stubs: Stubs) -> str | None:
    """Why the server will not become ready, as a sentence; None as long as it may."""
    for model, reason in log.failures.items():
        if _UNEXPLAINED in reason:
            return _ended(model, log)
        return f"stage {model} could not be loaded: {reason}"
    for model in stubs.ended():
        suspects = {model} if model in log.seen else log.loading
        if named := " or ".join(sorted(suspects & log.loading)):
            return _ended(named, log)
    return None


def _ended(model: str, log: Log) -> str:
    words = f"; the last that was said: {log.last_words}" if log.last_words else " without a word"
    return f"the process of stage {model} ended while it loaded{words}"


def _first_line(reason: str) -> str:
    """A reason without what follows it: Triton writes line ends as backslash and n, and adds the trace."""
    return re.split(r"\\n|\"$", reason)[0].strip()


def _children(pid: int) -> set[int]:
    """The processes that any thread of a process started, at times not all of them."""
    children: set[int] = set()
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread ended meanwhile
            children.update(map(int, listing.read_text().split()))
    return children


def _model(pid: int) -> str:
    """The model that a stub serves, from its command line; nothing if it is no stub, or has ended."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if len(words) > 1 and words[0].decode(errors="replace").endswith(_STUB):
            return Path(words[1].decode(errors="replace")).parent.parent.name
    return ""


def _has_ended(pid: int) -> bool:
    """Whether a process ended and its parent has not noticed: a zombie."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return status.rpartition(")")[2].split()[0] == "Z"
    return False
