"""What the hub offers and how it refuses: listings and bytes, with every failure in one sentence.

huggingface_hub finds files and speaks to the hub; this module receives their bytes itself, because the
library throws away what it has when it is interrupted, and verifies no checksum.
"""

import errno
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import get_hf_file_metadata
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]
from tqdm import tqdm  # type: ignore[import-untyped]

from cosmos_triton.errors import CheckpointError

_log = logging.getLogger(__name__)

UNKNOWN = -1  # size of a file
_ATTEMPTS = 5  # without a byte of progress
_BUSY = frozenset({408, 429, 500, 502, 503, 504})  # answers after which a transfer is tried again
_PARTIAL_CONTENT = 206
_PAUSE_S = 1.0
_PATIENCE_S = 900.0  # how long in all a command waits because the hub says when to come back
_PARTIAL = ".partial"
_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_HASHED_AT_ONCE = 1 << 24

T = TypeVar("T")


class DownloadError(CheckpointError):
    """A download did not succeed; `exit_code` is what the command line returns."""

    exit_code = 1


class TokenMissing(DownloadError):
    """The repository wants a token and none is set."""

    exit_code = 3


class TokenRefused(DownloadError):
    """The hub does not know the token (401)."""

    exit_code = 4


class LicenceNotAccepted(DownloadError):
    """The token's account may not read the repository (403)."""

    exit_code = 5


class HubUnreachable(DownloadError):
    """No network, no answer, or the hub is in trouble (429, 5xx)."""

    exit_code = 6


class DiskFull(DownloadError):
    """There is not enough room."""

    exit_code = 7


class FileCorrupt(DownloadError):
    """What arrived is not what the hub lists."""

    exit_code = 8


class NotOnHub(DownloadError):
    """The hub has no such repository, revision or file (404)."""

    exit_code = 9


@dataclass(frozen=True)
class HubFile:
    """One file of a repository at one commit."""

    repository: str
    revision: str  # commit hash
    name: str
    size: int  # UNKNOWN where a listing does not say
    sha256: str = ""  # empty too for a small file that git holds itself
    git_sha1: str = ""

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if path.is_absolute() or ".." in path.parts:
            raise DownloadError(f"{self.repository} lists a file outside itself: {self.name!r}")

    @property
    def checksum(self) -> str:
        """What a whole file's digest is; empty where the hub does not say."""
        return self.sha256 or self.git_sha1


def list_files(repository: str, revision: str = "main") -> list[HubFile]:
    """Every file of a repository with its size and checksum."""
    check_token()
    with _explained(repository):
        info = _patiently(lambda: HfApi().model_info(repository, revision=revision, files_metadata=True))
    return [
        HubFile(
            repository=repository,
            revision=info.sha or revision,
            name=entry.rfilename,
            size=_known(entry.lfs.size if entry.lfs else entry.size),
            sha256=entry.lfs.sha256 if entry.lfs else "",
            git_sha1=entry.blob_id or "",
        )
        for entry in info.siblings or []
    ]


def described(file: HubFile) -> HubFile:
    """`file` with what its headers say and the listing did not.

    Asks for the headers only; a refusal raises as for the file itself.
    """
    with _explained(file.repository):
        headers = _patiently(lambda: get_hf_file_metadata(_address(file)))
    if file.size == UNKNOWN:
        file = replace(file, size=_known(headers.size))
    etag = headers.etag or ""
    if not file.sha256 and _SHA256.fullmatch(etag):
        file = replace(file, sha256=etag)
    elif not file.checksum and _SHA1.fullmatch(etag):
        file = replace(file, git_sha1=etag)
    if file.size == UNKNOWN:
        raise DownloadError(f"the hub does not say how large {file.name} of {file.repository} is")
    return file


def _known(size: int | None) -> int:
    return UNKNOWN if size is None else size


def is_whole(file: HubFile, path: Path) -> bool:
    """Whether `path` has the file's size and, where the hub says one, its checksum."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return not file.checksum or _digest(file, path) == file.checksum


def fetch(file: HubFile, path: Path) -> None:
    """Brings `file` to `path`, going on where an earlier attempt stopped.

    Bytes gather beside `path` under a name that has the checksum in it, and are moved to `path` only when
    the checksum is right; otherwise they are deleted. Blocks until done.

    Raises:
        DownloadError: one of its kinds above.
    """
    partial = partial_path(file, path)
    with _explained(file.repository, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_bytes(file, partial)
        if not is_whole(file, partial):
            partial.unlink(missing_ok=True)
            raise FileCorrupt(
                f"{file.name} of {file.repository} arrived with a wrong checksum and was deleted; "
                "run the same command to fetch it again"
            )
        os.replace(partial, path)


def partial_path(file: HubFile, path: Path) -> Path:
    """Where the bytes of an unfinished download of `path` lie."""
    return path.with_name(f"{path.name}.{(file.checksum or file.revision)[:12]}{_PARTIAL}")


def check_token() -> None:
    """Refuse a token that cannot be sent: HTTP headers hold printable ASCII.

    Raises:
        TokenRefused: it holds a blank or another character that no token has.
    """
    odd = next((sign for sign in get_token() or "" if not "!" <= sign <= "~"), None)
    if odd is not None:
        raise TokenRefused(f"the token in HF_TOKEN holds {odd!r}, which no token has: copy it again")


@dataclass
class _Patience:
    """Waits when the hub says for how long, until `left` seconds are used up."""

    left: float = _PATIENCE_S

    def wait(self, error: Exception) -> bool:
        """Sleep as long as the hub asked in this refusal. False: it did not ask, or for too long."""
        told = told_to_wait(error)
        if told is None or told > self.left:
            return False
        _log.warning("the hub asks to wait: going on in %.0f s", told)
        time.sleep(told)
        self.left -= told
        return True


def told_to_wait(error: Exception) -> float | None:
    """Seconds that a refusal's `Retry-After` asks for, at least the usual pause; None without one."""
    if not isinstance(error, HfHubHTTPError) or error.response.status_code not in _BUSY:
        return None
    told = error.response.headers.get("Retry-After", "").strip()
    if told.isdigit():
        return max(_PAUSE_S, float(told))
    try:
        moment = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(_PAUSE_S, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _patiently(ask: Callable[[], T]) -> T:
    """Ask, and ask again whenever the hub says when to come back."""
    patience = _Patience()
    while True:
        try:
            return ask()
        except HfHubHTTPError as error:
            if not patience.wait(error):
                raise


def _fetch_bytes(file: HubFile, partial: Path) -> None:
    """Receives what `partial` lacks, again and again as long as bytes arrive."""
    failures, patience = 0, _Patience()
    if _bytes_in(partial) > file.size:
        partial.unlink()
    partial.touch()
    have = _bytes_in(partial)
    bar = tqdm(total=file.size, initial=have, desc=file.name, unit="B", unit_scale=True, disable=None)
    with bar:
        while (have := _bytes_in(partial)) < file.size:
            problem: Exception = ConnectionError(f"{file.name} ended at byte {have} of {file.size}")
            try:
                _receive(file, partial, have, bar.update)
            except Exception as error:
                if patience.wait(error):
                    continue
                if not _is_transient(error) or told_to_wait(error) is not None:
                    raise
                problem = error
            failures = 0 if _bytes_in(partial) > have else failures + 1
            if failures == _ATTEMPTS:
                raise problem
            if failures or _bytes_in(partial) < file.size:
                _log.warning("%s: %s; going on at byte %d", file.name, problem, _bytes_in(partial))
                time.sleep(_PAUSE_S)


def _receive(file: HubFile, partial: Path, have: int, on_bytes: Callable[[int], object]) -> None:
    """Appends one answer's bytes to `partial`; starts it anew when the hub will not skip what we have."""
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", _address(file), headers=headers, timeout=timeout) as response:
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        skipped = have if response.status_code == _PARTIAL_CONTENT else 0
        with partial.open("ab") as target:
            if skipped < have:
                target.truncate(0)
                on_bytes(-have)
            for piece in response.iter_bytes():
                on_bytes(len(piece))
                target.write(piece)
                skipped += len(piece)
                if skipped > file.size:
                    break  # more than was listed: the checksum will be wrong, whatever follows


def _bytes_in(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _address(file: HubFile) -> str:
    return hf_hub_url(file.repository, file.name, revision=file.revision)


def _digest(file: HubFile, path: Path) -> str:
    # Without a sha256 there is git's own object id: SHA-1 over a header and the content.
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {file.size}\0".encode())
    with path.open("rb") as source:
        while piece := source.read(_HASHED_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def _is_transient(error: Exception) -> bool:
    """Whether asking again may help."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _BUSY
    return _is_transport(error)


def _is_transport(error: BaseException) -> bool:
    """Whether the connection failed, rather than the hub refusing or the disk."""
    if isinstance(error, HfHubHTTPError):
        return False
    return type(error).__module__.partition(".")[0] in _TRANSPORTS or isinstance(
        error, ConnectionError | TimeoutError
    )


@contextmanager
def _explained(repository: str, path: Path | None = None) -> Iterator[None]:
    """Turns what the library raises into a DownloadError of one sentence."""
    try:
        yield
    except DownloadError:
        raise
    except HfHubHTTPError as error:
        raise _refusal(error, repository) from error
    except OfflineModeIsEnabled as error:
        raise HubUnreachable("HF_HUB_OFFLINE is set, so nothing can be fetched") from error
    except ImportError as error:  # httpx asks for socksio only when it meets such a proxy
        raise HubUnreachable(f"a SOCKS proxy ({_proxies()}) needs: pip install socksio") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = f"{path} does not fit ({error.strerror}); what has arrived is kept for the next run"
            raise DiskFull(reason) from error
        if _is_transport(error):
            raise _unreachable(error) from error
        raise DownloadError(f"{path or repository}: {error.strerror or error}") from error
    except Exception as error:
        if not _is_transport(error) and "proxy" not in str(error):
            raise
        raise _unreachable(error) from error


def _unreachable(error: BaseException) -> HubUnreachable:
    reason = re.sub(r"\[Errno -?\d+\] ", "", next(iter(str(error).splitlines()), "")) or type(error).__name__
    through = f" through the proxy {_proxies()}" if _proxies() else ""
    return HubUnreachable(f"{constants.ENDPOINT} cannot be reached{through}: {reason}")


def _proxies() -> str:
    """The proxies in force, as the environment has them."""
    return ", ".join(dict.fromkeys(url for scheme, url in getproxies().items() if scheme != "no"))


def _refusal(error: HfHubHTTPError, repository: str) -> DownloadError:
    status = error.response.status_code
    page = f"{constants.ENDPOINT}/{repository}"
    tokens = f"{constants.ENDPOINT}/settings/tokens"
    gated = isinstance(error, GatedRepoError)
    if status == 401 and not get_token():
        return TokenMissing(
            f"{repository} wants a token: accept the licence at {page}, make a token at {tokens} "
            "and set HF_TOKEN"
        )
    if status == 401:
        return TokenRefused(f"the hub refused the token (401): check HF_TOKEN against {tokens}")
    if status == 403 or gated:
        return LicenceNotAccepted(
            f"the token may not read {repository} ({status}): accept the licence at {page} with its account, "
            "and let the token read gated repositories"
        )
    if status == 404:
        return NotOnHub(f"the hub has no {error.response.request.url} (404)")
    told = told_to_wait(error)
    if told is not None:
        return HubUnreachable(f"{constants.ENDPOINT} asks to come back in {told:.0f} s (status {status})")
    if status == 429 or status >= 500:
        return HubUnreachable(f"{constants.ENDPOINT} is in trouble (status {status}); try again later")
    return DownloadError(f"{repository}: the hub answered status {status}")
