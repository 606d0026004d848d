"""What the operating system refused, as one sentence that names the file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cosmos_triton.errors import ConfigurationError, CosmosError


def sentence(error: OSError, place: str | os.PathLike[str] = "") -> str:
    """The system's reason and the file it is about: the error's own, else `place`.

    Reads and writes of open files fail without saying which file; whoever opened it knows.
    """
    reason = error.strerror or next(iter(str(error).splitlines()), "") or type(error).__name__
    named = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else place
    return f"{os.fsdecode(named)}: {reason}" if named else reason


@contextmanager
def telling(place: str | os.PathLike[str], kind: type[CosmosError] = ConfigurationError) -> Iterator[None]:
    """Turns an OSError into a `kind` whose sentence names the error's file, or `place` if it has none."""
    try:
        yield
    except OSError as error:
        raise kind(sentence(error, place)) from error
