"""A stage's signs of life, for the supervisor that started the server; see `server/stages_alive`.

Without a supervisor (a bare tritonserver) the environment variable is absent and nothing is written.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FOLDER_VARIABLE = "COSMOS_STAGES_ALIVE"
CANNOT_GO_ON = 70  # exit code of a stage process
_EVERY_S = 0.5
_LAST_ANSWERS_S = 0.5  # for answers that were just sent to leave the process


class Heartbeat:
    """One stage process's file, and a thread that renews it.

    The thread also ends the process when the server is gone (a stage whose tritonserver was killed would
    otherwise stay, with its memory on the card), and when the stage cannot go on, so that the supervisor
    loads it again.

    Args:
        stage: the Triton model's name.
        folder: where stages sign in; None: nobody looks, and the process is never ended.
    """

    def __init__(self, stage: str, folder: Path | None) -> None:
        self.able: Callable[[], bool] = lambda: True
        self._parent = os.getppid()
        self._over = threading.Event()
        self._beat = folder and folder / stage / str(os.getpid())
        if self._beat is None:
            return
        self._held = self._beat.with_name(self._beat.name + ".holds")
        self._held.mkdir(parents=True, exist_ok=True)
        self._beat.touch()
        threading.Thread(target=self._renew, name="heartbeat", daemon=True).start()

    @classmethod
    def of(cls, stage: str) -> "Heartbeat":
        """As the environment asks."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return cls(stage, Path(folder) if folder else None)

    def holds(self, request_id: str) -> None:
        """The stage owes this request a late answer: it is lost if the process dies."""
        if self._beat is not None and _is_name(request_id):
            with suppress(OSError):
                (self._held / request_id).touch()

    def answered(self, request_id: str) -> None:
        """The answer is out."""
        if self._beat is not None and _is_name(request_id):
            with suppress(OSError):
                (self._held / request_id).unlink(missing_ok=True)

    def cannot_go_on(self) -> None:
        """End the process once its last answers are out."""
        self.able = lambda: False

    def stop(self) -> None:
        """Sign out: an end that is no death."""
        self._over.set()
        if self._beat is not None:
            with suppress(OSError):
                self._beat.unlink(missing_ok=True)
                self._held.rmdir()

    def _renew(self) -> None:
        assert self._beat is not None
        while not self._over.wait(_EVERY_S):
            if os.getppid() != self._parent:
                os._exit(1)
            if not self.able():
                time.sleep(_LAST_ANSWERS_S)
                os._exit(CANNOT_GO_ON)
            with suppress(OSError):
                os.utime(self._beat)


def _is_name(request_id: str) -> bool:
    """Whether an id can be a file's name; those that the front gives out can."""
    return bool(request_id) and "/" not in request_id and not request_id.startswith(".")
