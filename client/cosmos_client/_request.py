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

from cosmos_client._contract import INPUTS
from cosmos_client._errors import UsageError

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
    """One request for a world; None leaves a knob at the server's default."""

    media: bytes  # one encoded file
    prompt: str | None = None
    num_input_frames: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.media:
            raise UsageError("the media is empty (0 bytes)")
        if len(self.media) > _MAX_FILE_BYTES:
            raise UsageError(_too_large("the media", len(self.media)))
        if self.prompt is not None:
            _encode_prompt(self.prompt)
        _check_integer("num_input_frames", self.num_input_frames, np.int32)
        _check_integer("seed", self.seed, np.int64)
        _check_number("temperature", self.temperature)
        _check_number("top_p", self.top_p)

    def inputs(self) -> list[Any]:
        """The tensors of this request (`InferInput`), each of shape [1]."""
        values = {
            "media": self.media,
            "prompt": None if self.prompt is None else _encode_prompt(self.prompt),
            "num_input_frames": self.num_input_frames,
            "seed": self.seed,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }
        return [tensor(name, INPUTS[name], value) for name, value in values.items() if value is not None]


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
        raise UsageError(f"no such file: {file}") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except (TypeError, ValueError) as error:  # not a path, or one with a NUL in it
        raise UsageError(f"{file!r} is not a path: {error}") from error
    if not content:
        raise UsageError(f"{file} is empty (0 bytes)")
    return content


def _too_large(name: str, size: int) -> str:
    return f"{name} has {size:,} bytes; a request holds at most {_MAX_FILE_BYTES:,}"


def _encode_prompt(prompt: object) -> bytes:
    if not isinstance(prompt, str):
        raise UsageError(f"prompt must be text, not {prompt!r}")
    try:
        return prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"prompt is not valid Unicode: {error.reason} at character {error.start}") from None


def _check_integer(name: str, value: object, dtype: type[np.signedinteger[Any]]) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} must be a whole number, not {value!r}")
    limits = np.iinfo(dtype)
    if not limits.min <= int(value) <= limits.max:
        raise UsageError(f"{name} {value} does not fit into {limits.bits} bits")


def _check_number(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {value!r}")
    try:
        finite_or_not = float(value)
    except OverflowError:
        raise UsageError(f"{name} is too large for a number of 32 bits") from None
    if np.finfo(np.float32).max < abs(finite_or_not) < float("inf"):
        raise UsageError(f"{name} {value} is too large for a number of 32 bits")
