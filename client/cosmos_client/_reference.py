"""The command line of cosmos-predict1, whose calls run here as they are printed on its pages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_client._errors import UsageError

INPUT_TYPES = ("image", "video", "text_and_image", "text_and_video")
DEFAULT_FOLDER, DEFAULT_NAME = "outputs", "output"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
VIDEO_SUFFIXES = (".mp4",)

_OPTION_NAMES = re.compile(r"--[a-z][\w-]*(?:/--[a-z][\w-]*)*")  # as argparse joins them


@dataclass(frozen=True)
class ServerOption:
    """An option of the reference that is set on the server here."""

    name: str
    where: str
    metavar: str | None = None  # None: it takes no value


_OFFLOAD = "COSMOS_RESIDENCY=offload in the server's environment"
SERVER_OPTIONS = (
    ServerOption("checkpoint-dir", "cosmos-triton serve --checkpoint-dir", "DIR"),
    ServerOption("ar-model-dir", "cosmos-triton serve --model", "NAME"),
    ServerOption("num-gpus", "one server, one GPU", "N"),
    ServerOption("offload-ar-model", _OFFLOAD),
    ServerOption("offload-diffusion-decoder", _OFFLOAD),
    ServerOption("offload-guardrail-models", _OFFLOAD),
    ServerOption("offload-text-encoder-model", _OFFLOAD),
    ServerOption("offload-tokenizer", _OFFLOAD),
    ServerOption("disable-guardrail", "posture, a parameter of the server's guardrails"),
)


def dashed(word: str) -> str:
    """An option in the reference's spelling as ours: `--top_p=0.8` → `--top-p=0.8`; the rest stays."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def as_typed(message: str, words: Sequence[str]) -> str:
    """`message` with each option spelled as in `words`, the command line that it is about."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    typed = {dashed(name): name for name in names}

    def spell(match: re.Match[str]) -> str:
        return next((typed[name] for name in match[0].split("/") if name in typed), match[0])

    return _OPTION_NAMES.sub(spell, message)


def where_set(words: Sequence[str]) -> str | None:
    """One sentence on the server's options in a command line, or None where it has none."""
    places: dict[str, list[str]] = {}
    for name in (word.partition("=")[0] for word in words):
        for option in SERVER_OPTIONS:
            if dashed(name) == f"--{option.name}":
                places.setdefault(option.where, []).append(name)
    if not places:
        return None
    parts = [f"{', '.join(names)} ({where})" for where, names in places.items()]
    return f"set on the server, and ignored here: {'; '.join(parts)}"


def check_input_type(input_type: str | None, media: Path, prompt: str | None) -> None:
    """Holds a request against the reference's `--input_type`; raises `UsageError`."""
    if input_type is None:
        return
    if input_type.startswith("text_and_") and prompt is None:
        raise UsageError(f"input type {input_type} needs a prompt")
    if not input_type.startswith("text_and_") and prompt is not None:
        raise UsageError(f"input type {input_type} takes no prompt: use text_and_{input_type}")
    wanted = input_type.removeprefix("text_and_")
    other, suffixes = ("image", IMAGE_SUFFIXES) if wanted == "video" else ("video", VIDEO_SUFFIXES)
    if media.suffix.lower() in suffixes:
        raise UsageError(f"input type {input_type} does not fit {media}, which is named like {other}s are")


def takes_one_frame(input_type: str | None, options: dict[str, Any]) -> bool:
    """Whether the reference makes one frame of context of the nine that `options` ask for."""
    is_image = input_type in ("image", "text_and_image")
    return is_image and options.get("num_input_frames") not in (None, 1)
