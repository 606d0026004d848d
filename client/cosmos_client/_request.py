"""What one request holds, checked and turned into tensors.

Ranges (a seed's sign, top_p in (0, 1], 1 or 9 input frames) belong to the server, which knows its
models; here only what could not be sent at all is refused.
"""

import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput  # type: ignore[import-untyped]

from cosmos_client._contract import BASE, FAST_SUFFIX, INPUTS, TAKE_NO_PROMPT, VIDEO2WORLD
from cosmos_client._errors import UsageError, reason_of
from cosmos_client._files import shortened, why_no_path
from cosmos_client._options import OPTIONS, Options

_MAX_FILE_BYTES = 2**31 - 2**20  # a message holds 2 GiB, the rest of the request included
_NUMPY_TYPES: dict[str, type] = {
    "BYTES": np.object_,
    "FP32": np.float32,
    "INT32": np.int32,
    "INT64": np.int64,
}

Media: TypeAlias = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class WorldRequest:
    """One request for a world: one encoded file and what is said about it."""

    media: bytes
    options: Options

    def __post_init__(self) -> None:
        if unknown := sorted(self.options.keys() - OPTIONS.keys()):
            raise TypeError(f"a request has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}")
        if not self.media:
            raise UsageError("the media is empty (0 bytes)")
        if len(self.media) > _MAX_FILE_BYTES:
            raise UsageError(_too_large("the media", len(self.media)))
        self._values()

    def inputs(self) -> list[Any]:
        """The tensors of this request (`InferInput`), each of shape [1]."""
        values = {"media": self.media, **self._values()}
        return [tensor(name, INPUTS[name], value) for name, value in values.items()]

    def _values(self) -> dict[str, object]:
        given: dict[str, object] = {**self.options}
        return {name: _checked(name, given[name]) for name in OPTIONS if given.get(name) is not None}


def choose_model(model: str | None, prompt: str | None, *, disable_diffusion_decoder: bool = False) -> str:
    """The ensemble that serves a request: the one named, else the one that its prompt asks for.

    A name that is not known here is left to the server, which may have more ensembles.

    Raises:
        UsageError: the name is empty, or the ensemble takes no prompt and there is one.
    """
    if model == "":
        raise UsageError("the model's name is empty: leave it out for the default")
    if model in TAKE_NO_PROMPT and prompt is not None:
        raise UsageError(f"model {model} takes no prompt: leave it out, or use {VIDEO2WORLD}")
    name = (BASE if prompt is None else VIDEO2WORLD) if model is None else model
    if disable_diffusion_decoder and not name.endswith(FAST_SUFFIX):
        return name + FAST_SUFFIX
    return name


def tensor(name: str, datatype: str, value: object) -> Any:
    """`value` as an `InferInput` of shape [1]."""
    data: NDArray[Any] = np.array([value], dtype=_NUMPY_TYPES[datatype])  # [1]
    return InferInput(name, [1], datatype).set_data_from_numpy(data)


def read_file(file: str | os.PathLike[str]) -> bytes:
    """The content of a file that must not be empty; raises `UsageError`."""
    try:
        path = Path(file)
        if (size := path.stat().st_size) > _MAX_FILE_BYTES:
            raise UsageError(_too_large(str(path), size))
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(why_no_path(str(file)) or f"no such file: {file}") from None
    except OSError as error:
        raise UsageError(
            why_no_path(str(file)) or f"cannot read {shortened(file)}: {reason_of(error)}"
        ) from error
    except (TypeError, ValueError) as error:  # not a path, or one with a NUL in it
        raise UsageError(f"{file!r} is not a path: {error}") from error
    if not content:
        raise UsageError(f"{file} is empty (0 bytes)")
    return content


def _too_large(name: str, size: int) -> str:
    return f"{name} has {size:,} bytes; a request holds at most {_MAX_FILE_BYTES:,}"


def _checked(name: str, value: object) -> object:
    """`value` as its tensor holds it; raises `UsageError` if it cannot be sent."""
    match OPTIONS[name].datatype:
        case "BYTES":
            return _encoded(name, value)
        case "FP32":
            return _number(name, value)
        case "INT32":
            return _integer(name, value, np.int32)
        case _:
            return _integer(name, value, np.int64)


def _encoded(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text, not {value!r}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} is not valid Unicode: {error.reason} at character {error.start}") from None


def _integer(name: str, value: object, dtype: type[np.signedinteger[Any]]) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} must be a whole number, not {value!r}")
    limits = np.iinfo(dtype)
    if not limits.min <= int(value) <= limits.max:
        raise UsageError(f"{name} {value} does not fit into {limits.bits} bits")
    return int(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {value!r}")
    try:
        finite_or_not = float(value)
    except OverflowError:
        raise UsageError(f"{name} is too large for a number of 32 bits") from None
    if float(np.finfo(np.float32).max) < abs(finite_or_not) < float("inf"):
        raise UsageError(f"{name} {value} is too large for a number of 32 bits")
    return finite_or_not
