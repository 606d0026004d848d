"""Which stage processes live, as they say themselves: files in one folder, on memory.

    FOLDER/STAGE/PID              exists while the process serves; its time is renewed twice a second
    FOLDER/STAGE/PID.holds/ID     one empty file for each request that the process owes a late answer

The stages write (`cosmos_triton.serving.heartbeat`), the supervisor reads. A file of a process that has gone
is a death; an old file of one that lives, a process that hangs.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HOLDS = ".holds"


@dataclass(frozen=True)
class StageProcess:
    """One instance of a stage, as its file has it."""

    stage: str
    pid: int
    beat: Path

    @property
    def exists(self) -> bool:
        """Whether the process runs; a zombie does not."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state not in "ZX"

    def silent_s(self, now: float) -> float:
        """Seconds since its last sign of life."""
        try:
            return now - self.beat.stat().st_mtime
        except OSError:
            return 0.0

    @property
    def holds(self) -> set[str]:
        """Ids of the requests that it has and has not answered."""
        folder = self.beat.with_name(self.beat.name + HOLDS)
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def forget(self) -> None:
        """Remove what it left."""
        self.beat.unlink(missing_ok=True)
        shutil.rmtree(self.beat.with_name(self.beat.name + HOLDS), ignore_errors=True)


def stage_processes(folder: Path) -> Iterator[StageProcess]:
    """Every process that has signed in and not out."""
    for stage in sorted(folder.iterdir()):
        for beat in sorted(stage.iterdir()):
            if beat.name.isdigit():
                yield StageProcess(stage.name, int(beat.name), beat)


@dataclass
class Watch:
    """Finds dead and hanging processes, round by round.

    Args:
        folder: where the stages sign in.
        hangs_after_s: silence that counts as hanging.
    """

    folder: Path
    hangs_after_s: float
    _last_round: float = 0.0

    def round(self) -> list[StageProcess]:
        """The processes that have died since the last round; those that hang are killed and among them."""
        now = time.time()
        # Had this process itself been stopped (a paused machine), everyone's file would be old.
        trusted = now - self._last_round < self.hangs_after_s / 2
        self._last_round = now
        dead = []
        for process in stage_processes(self.folder):
            if process.exists and not (trusted and process.silent_s(now) > self.hangs_after_s):
                continue
            if process.exists:
                _kill(process.pid)
            dead.append(process)
        return dead


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
