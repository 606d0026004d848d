"""Files that appear whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cosmos_client._errors import UsageError, cannot_write, reason_of


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends, and vanishes if it fails.

    The data is on disk before the name is, so that neither an interruption nor a crash leaves half
    a file under that name.

    Raises:
        OutputError: the file cannot be written.
    """
    # In the same folder, because a rename is atomic only inside one file system.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def prepare_output(path: Path) -> None:
    """Makes the folder of `path` and refuses a `path` that cannot be written; raises `UsageError`.

    Called before a request is sent: a minute of work on the server must not end at a typing error.
    """
    try:
        irregular = path.exists() and not path.is_file()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {reason_of(error)}") from error
    if irregular:  # /dev/null too: replacing it would break the machine
        raise UsageError(f"{path} exists and is not a regular file")
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes `folder` and its parents, and checks that files can be made in it; raises `UsageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {reason_of(error)}") from error
    if not writable:
        raise UsageError(f"the folder {folder} is not writable")


def is_regular(path: Path) -> bool:
    """Whether `path` is a file that can be looked at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def why_no_path(name: str) -> str | None:
    """What `name` is where it cannot be the path of a file: a URL, or media written out as text."""
    scheme, colon, _ = name.partition(":")
    if scheme.lower() == "data" and colon:
        return f"{shortened(name)} is a data URL, not the path of a file: save what it holds as a file"
    if "://" in name:
        return f"{shortened(name)} is a URL, not the path of a file: download it and give the file"
    return None


def shortened(name: object, most: int = 200) -> str:
    """`name` at a length that fits into a sentence."""
    text = str(name)
    return text if len(text) <= most else f"{text[: most // 2]}... ({len(text):,} characters)"
