"""Files that appear whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cosmos_client._errors import UsageError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends, and vanishes if it fails.

    The data is on disk before the name is, so that neither an interruption nor a crash leaves half
    a file under that name.
    """
    # In the same folder, because a rename is atomic only inside one file system.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def prepare_output(path: Path) -> None:
    """Makes the folder of `path` and refuses a `path` that cannot be written; raises `UsageError`.

    Called before a request is sent: a minute of work on the server must not end at a typing error.
    """
    if path.exists() and not path.is_file():  # /dev/null too: replacing it would break the machine
        raise UsageError(f"{path} exists and is not a regular file")
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes `folder` and its parents, and checks that files can be made in it; raises `UsageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} is not writable")
