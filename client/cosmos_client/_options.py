"""The options of a request, listed once.

`CosmosClient.generate`, the command line, batch files and the request's tensors all read this list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypedDict, get_type_hints


@dataclass(frozen=True)
class Option:
    """How one option travels, and how the command line explains it."""

    datatype: str  # Triton's name: BYTES, FP32, INT32 or INT64
    metavar: str | None  # None: the choices stand in the help
    help: str
    choices: tuple[int, ...] | None = None

    @property
    def python_type(self) -> type[str] | type[float] | type[int]:
        """What the command line reads the option as."""
        return {"BYTES": str, "FP32": float}.get(self.datatype, int)


class Options(TypedDict, total=False):
    """What a request may say besides its media. An option left out, or None, is the server's default."""

    prompt: Annotated[str | None, Option("BYTES", "TEXT", "what happens next; for the Video2World models")]
    num_input_frames: Annotated[
        int | None,
        Option("INT32", None, "frames of context (default: 1 for an image, 9 for a video)", choices=(1, 9)),
    ]
    seed: Annotated[int | None, Option("INT64", "N", "same seed, same world (default: 0)")]
    temperature: Annotated[
        float | None, Option("FP32", "X", "default: the value recommended for the model; 0: no chance")
    ]
    top_p: Annotated[
        float | None, Option("FP32", "X", "in (0, 1]; default: the value recommended for the model")
    ]


OPTIONS: Mapping[str, Option] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Options, include_extras=True).items()
}
