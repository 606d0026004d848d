"""Folders for what Triton needs, under names that its Python stub can take.

Triton starts the process of a Python stage through a shell, with the folders of the model and of the
backend unquoted in the command line: below a folder with a space the stub reads wrong arguments and ends,
and Triton waits for it for ever. The stub's interpreter, moreover, knows file names in ASCII only,
whatever the locale says, and does not start if a .pth file of the environment names another. Such folders
are therefore handed to Triton as links with plain names.
"""

import hashlib
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cosmos_triton.errors import ConfigurationError

_PLAIN = re.compile(r"[A-Za-z0-9._/+=,@%-]+")  # what a shell passes on as it stands
_NAME = "cosmos-triton"


def is_plain(path: Path) -> bool:
    """Whether Triton's Python stub takes this name."""
    return _PLAIN.fullmatch(str(path)) is not None


def work_folder() -> Path:
    """A folder with a plain name that we alone write to: in the user's cache, else in a temporary one.

    Raises:
        ConfigurationError: there is none.
    """
    candidates = list(_candidates())
    for folder in candidates:
        if is_plain(folder) and _is_ours(folder):
            return folder
    raise ConfigurationError(
        f"none of {', '.join(map(str, candidates))} can be written to under a name without spaces and in "
        "ASCII: set XDG_CACHE_HOME to such a folder"
    )


def plain(path: Path, links: Path) -> Path:
    """The folder itself, or a link to it in `links` if its name is not plain."""
    real = path.resolve()
    if is_plain(real):
        return real
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    link = links / f"{digest}-{re.sub(r'[^A-Za-z0-9.]+', '-', real.name).strip('-')}"
    links.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # an earlier server's: the name says where it leads
        link.symlink_to(real, target_is_directory=True)
    return link


def interpreter_folder(work: Path, search_path: Sequence[str] = tuple(sys.path)) -> Path:
    """The folder whose `python3` gives stages the packages of this process.

    That is the folder of this interpreter, or, where a name on its search path is not ASCII, an environment
    made in `work` that names the same folders by links.
    """
    named = (sys.prefix, sys.base_prefix, *search_path)
    if all(name.isascii() and os.pathsep not in name for name in named):
        return Path(sys.executable).parent
    packages = [str(plain(Path(entry), work / "links")) for entry in _packages(search_path)]
    listing = "\n".join([*packages, ""])
    environment = work / f"python-{hashlib.sha256(os.fsencode(listing + sys.base_prefix)).hexdigest()[:12]}"
    base = plain(Path(sys.base_prefix), work / "links")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _write(environment / "pyvenv.cfg", f"home = {base / 'bin'}\ninclude-system-site-packages = false\n")
    _write(environment / "lib" / version / "site-packages" / "stages.pth", listing)
    (environment / "bin").mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (environment / "bin" / "python3").symlink_to(base / "bin" / version)
    return environment / "bin"


def _packages(search_path: Iterable[str]) -> list[str]:
    """The folders of the search path that are not the standard library's, nor the working directory."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return [
        entry
        for entry in search_path
        if entry and entry not in standard and Path(entry).is_dir() and Path(entry).name != "lib-dynload"
    ]


def _candidates() -> Iterable[Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(cache) / _NAME
    for folder in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):
        yield Path(folder) / f"{_NAME}-{os.getuid()}"


def _is_ours(folder: Path) -> bool:
    """Whether the folder, made if need be, is ours alone to write to: stages run programs from it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        with tempfile.TemporaryFile(dir=folder):
            return status.st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole: another server may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as fresh:
        fresh.write(text)
    os.replace(fresh.name, path)
