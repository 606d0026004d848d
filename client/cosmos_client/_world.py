"""The answer to a request, as a typed value."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_client._errors import ProtocolError
from cosmos_client._files import atomic_file


@dataclass(frozen=True, eq=False)
class World:
    """A generated world.

    Attributes:
        video: an MP4 file (H.264, yuv420p), as bytes.
        tokens: INT32 [5, H/16, W/16], the world as video tokens, context included.
        report: what the server did: model, seed, parameters in force, seconds per stage, guardrails.
        request_id: the id under which the server's log and traces know the request.
        frames: UINT8 [33, H, W, 3], RGB; None unless asked for with `want_frames`.
    """

    video: bytes = field(repr=False)
    tokens: NDArray[np.int32] = field(repr=False)
    report: dict[str, Any]
    request_id: str
    frames: NDArray[np.uint8] | None = field(repr=False, default=None)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the video to `path`, whole or not at all, and returns the path; raises `OutputError`."""
        target = Path(path)
        with atomic_file(target) as file:
            file.write(self.video)
        return target


def world_from(result: Any, request_id: str, *, want_frames: bool) -> World:
    """Reads the contract's outputs from an `InferResult`; raises `ProtocolError`."""
    frames = _array(result, "frames", np.uint8, rank=4) if want_frames else None  # [33, H, W, 3]
    return World(
        video=_bytes(result, "video"),
        tokens=_array(result, "tokens", np.int32, rank=3),  # [5, h, w]
        report=_report(_bytes(result, "report")),
        request_id=request_id,
        frames=frames,
    )


def _output(result: Any, name: str) -> NDArray[Any]:
    value: NDArray[Any] | None = result.as_numpy(name)
    if value is None:
        raise ProtocolError(f"the answer has no output {name!r}")
    return value


def _bytes(result: Any, name: str) -> bytes:
    value = _output(result, name)
    if value.shape != (1,) or not isinstance(value[0], bytes) or not value[0]:
        raise ProtocolError(f"output {name!r} is not one string of bytes but {value.dtype} {value.shape}")
    return value[0]


def _array(result: Any, name: str, dtype: type[np.generic], rank: int) -> NDArray[Any]:
    value = _output(result, name)
    if value.dtype != dtype or value.ndim != rank:
        raise ProtocolError(
            f"output {name!r} is {value.dtype} {value.shape}, not {np.dtype(dtype)} with {rank} dimensions"
        )
    return value


def _report(text: bytes) -> dict[str, Any]:
    try:
        report = json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"the report is not JSON: {error}") from error
    if not isinstance(report, dict):
        raise ProtocolError(f"the report is not a JSON object but {type(report).__name__}")
    return report
