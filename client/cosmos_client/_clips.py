"""The list of a batch: which clips a file names, and where their videos go."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_client._errors import UsageError, reason_of
from cosmos_client._files import why_no_path
from cosmos_client._options import OPTIONS

_HEAD_BYTES = 4096  # enough to see that a file is no text, before gigabytes of it are read
_EXAMPLE = 'a list holds lines like {"visual_input": "a.mp4"}'
_SIGNATURES = (  # offset, bytes, what such a file is
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (0, b"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
    (0, b"\x89PNG", "a picture (PNG)"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (8, b"WEBP", "a picture (WebP)"),
    (0, b"GIF8", "a picture (GIF)"),
)


@dataclass(frozen=True)
class Clip:
    """One entry of the list that can be sent."""

    line: int  # counted from 1; in a JSON array, the entry's number
    visual_input: str  # as the line says it
    path: Path
    options: dict[str, Any]  # arguments of `CosmosClient.generate`
    unknown: tuple[str, ...] = ()  # fields of the line that mean nothing here


@dataclass(frozen=True)
class BadLine:
    """One entry of the list that cannot be sent, and why."""

    line: int
    error: str


def read_clips(path: Path, defaults: dict[str, Any]) -> list[Clip | BadLine]:
    """Reads the clips of a list: `{"visual_input": "a.mp4", "prompt": "...", "seed": 1}`, one a line.

    The form of the whole file is judged before any line: objects printed over several lines and one
    JSON array are lists too, in UTF-8, UTF-16 or UTF-32.

    Args:
        path: the file. A `visual_input` that is not found from the working directory is looked for
            beside it. Blank lines count as lines but are no clips.
        defaults: options for lines that do not set them.

    Raises:
        UsageError: the file cannot be read, is no list, or none of its lines can be sent. Beside
            others that can, a line that cannot be sent is no error.
    """
    entries = _entries(path, _utf8(path, _read(path)))
    lines = [_clip_or_not(number, entry, path.parent, defaults) for number, entry in entries]
    if all(isinstance(line, BadLine) for line in lines):
        first = next(line for line in lines if isinstance(line, BadLine))
        raise UsageError(f"{path}:{first.line}: {first.error}; nothing else in it can be sent ({_EXAMPLE})")
    return lines


def _read(path: Path) -> bytes:
    """The file's content; raises `UsageError` as soon as it is seen to be no text."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if (kind := _what_else(head)) is not None:
                raise UsageError(f"{path} is {kind}, not a list of clips: send one clip with --input")
            return head + file.read()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error


def _what_else(head: bytes) -> str | None:
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    return "no text" if b"\0\0\0\0" in head else None  # no text has four, in UTF-32 neither


def _utf8(path: Path, data: bytes) -> bytes:
    """The list as UTF-8 without a byte order mark; raises `UsageError`."""
    encoding = json.detect_encoding(data)
    if encoding.startswith("utf-8"):  # a line that is not UTF-8 fails by itself
        return data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise UsageError(f"{path} looks like {encoding.upper()}, but is not: {error}") from None


def _entries(path: Path, data: bytes) -> list[tuple[int, object]]:
    """What the list says, by line; an exception stands for a line that is not JSON."""
    lines = [(n, line) for n, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    if not lines:
        raise UsageError(f"{path} has no lines")
    entries = [(number, _parsed(line)) for number, line in lines]
    if any(isinstance(entry, Exception) for _, entry in entries):
        try:
            entries = _documents(data.decode())
        except (ValueError, RecursionError) as error:
            begins_an_array = data.lstrip().startswith(b"[") and isinstance(entries[0][1], Exception)
            if begins_an_array or not any(isinstance(entry, dict) for _, entry in entries):
                raise UsageError(f"{path} is not a list of clips: {error} ({_EXAMPLE})") from None
    if len(entries) == 1 and isinstance(array := entries[0][1], list):
        return list(enumerate(array, start=1))
    return entries


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return error


def _documents(text: str) -> list[tuple[int, object]]:
    """JSON values that follow each other, however many lines each takes, by the line they begin on.

    Raises:
        ValueError, RecursionError: there is something else in the text.
    """
    decoder, found, position = json.JSONDecoder(), [], _skip_space(text, 0)
    while position < len(text):
        value, end = decoder.raw_decode(text, position)
        found.append((text.count("\n", 0, position) + 1, value))
        position = _skip_space(text, end)
    if len({number for number, _ in found}) == len(found):
        return found
    return [(number, value) for number, (_, value) in enumerate(found, start=1)]


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _clip_or_not(number: int, entry: object, folder: Path, defaults: dict[str, Any]) -> Clip | BadLine:
    try:
        return clip_from(number, entry, folder, defaults)
    except UsageError as error:
        return BadLine(number, str(error))


def clip_from(number: int, entry: object, folder: Path, defaults: dict[str, Any]) -> Clip:
    """One entry of the list as a clip; raises `UsageError`."""
    if isinstance(entry, Exception):
        raise UsageError(f"the line is not JSON: {entry}")
    if not isinstance(entry, dict):
        raise UsageError(f"the line is not a JSON object but {type(entry).__name__}")
    visual_input = entry.get("visual_input")
    if not isinstance(visual_input, str) or not visual_input:
        raise UsageError(f"visual_input must be the path of a file, not {visual_input!r}")
    if (reason := why_no_path(visual_input)) is not None:
        raise UsageError(reason)
    given = {name: entry[name] for name in OPTIONS if entry.get(name) is not None}
    unknown = tuple(sorted(set(entry) - {"visual_input", *OPTIONS}))
    return Clip(number, visual_input, _find(visual_input, folder), defaults | given, unknown)


def _find(visual_input: str, folder: Path) -> Path:
    path = Path(visual_input)
    try:
        return path if path.exists() else folder / path
    except (OSError, ValueError):  # a name no file can have: sending it says so
        return path


def name_outputs(clips: Sequence[Clip], folder: Path) -> dict[int, Path]:
    """The video's path for each clip by line: the clip's stem, numbered where two would be equal.

    Names depend on the file alone, not on which clips succeed. No video takes the place of a clip,
    whatever `folder` is.
    """
    taken = {_fold(clip.path) for clip in clips}
    names: dict[int, Path] = {}
    for clip in clips:
        stem = Path(clip.visual_input).stem
        candidate, copy = folder / f"{stem}.mp4", 2
        while _fold(candidate) in taken:
            candidate, copy = folder / f"{stem}-{copy}.mp4", copy + 1
        taken.add(_fold(candidate))
        names[clip.line] = candidate
    return names


def _fold(path: Path) -> str:
    """Equal for two spellings of one file, also where the file system ignores case."""
    try:
        return os.path.realpath(path).casefold()
    except (OSError, ValueError):  # a NUL in the name: sending it says so
        return str(path).casefold()
