"""What a guardrail is told, what it answers, and the rule that a failing check refuses.

A guardrail is a posture and its checks. A check that raises blocks the request: nothing passes
because something was broken. Only the posture `disabled` has no checks, and it says so in the log
and in every verdict.
"""

import hashlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.errors import Blocked, ConfigurationError, InvalidInput
from cosmos_triton.residency import Residency

logger = logging.getLogger(__name__)

Posture = Literal["full", "built-in", "disabled"]
Frames = NDArray[np.uint8]  # RGB [T, H, W, 3]

MAX_PROMPT_BYTES = 16_384  # the text encoder reads 512 tokens, some 2,500 letters

Observer = Callable[[str, str, str], None]
"""Called once per check with (guardrail's name, check, verdict: passed, blocked, changed or failed)."""


@dataclass(frozen=True)
class GuardrailSettings:
    """How one guardrail runs.

    Args:
        posture: `full` (the published models), `built-in` (word lists and OpenCV, no weights), or
            `disabled`.
        checkpoint_dir: folder of checkpoints; needed by `full`.
        device: torch device of the full posture's networks, e.g. `cuda:0`.
        residency: where those networks are between requests.
        name: what refusals, log and counters call the guardrail.
    """

    posture: Posture
    checkpoint_dir: Path | None = None
    device: str = "cpu"
    residency: Residency = Residency.RESIDENT
    name: str = "guardrail"

    def __post_init__(self) -> None:
        if self.posture not in get_args(Posture):
            raise ConfigurationError(
                f"guardrail posture is {self.posture!r}, must be one of {', '.join(get_args(Posture))}"
            )
        if self.posture == "full" and self.checkpoint_dir is None:
            raise ConfigurationError("guardrail posture 'full' needs a checkpoint_dir, none is set")


@dataclass(frozen=True)
class Verdict:
    """What was done to a request that may go on. One that may not raises `Blocked`.

    Args:
        posture: the posture in force.
        checks: what each check found, by name.
        seconds: time spent.
        faces_blurred: distinct faces made unrecognisable; None where no video was seen.
    """

    posture: Posture
    checks: Mapping[str, str]
    seconds: float
    faces_blurred: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON values, for a report."""
        told: dict[str, Any] = {"posture": self.posture, "checks": dict(self.checks)}
        if self.faces_blurred is not None:
            told["faces_blurred"] = self.faces_blurred
        return {**told, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True)
class Finding:
    """Why a check refuses: a category for machines, a sentence for people."""

    category: str
    reason: str


class PromptCheck(Protocol):
    """One way to look at a prompt."""

    @property
    def name(self) -> str:
        """Its name in verdicts."""

    def find(self, prompt: str) -> Finding | None:
        """What is wrong with the prompt; None if nothing is."""


class VideoCheck(Protocol):
    """One way to look at a video."""

    @property
    def name(self) -> str:
        """Its name in verdicts."""

    def find(self, frames: Frames) -> Finding | None:
        """What is wrong with the video; None if nothing is."""


class FaceBlur(Protocol):
    """Makes the faces of a video unrecognisable."""

    @property
    def name(self) -> str:
        """Its name in verdicts."""

    def blur(self, frames: Frames) -> tuple[Frames, int]:
        """The video without recognisable faces, and how many there were. The input is not written to."""


def decode_prompt(raw: bytes) -> str:
    """The prompt of a request as text.

    Raises:
        InvalidInput: it is missing, too long, not UTF-8, or blank.
    """
    if len(raw) > MAX_PROMPT_BYTES:
        raise InvalidInput(f"the prompt has {len(raw)} bytes, at most {MAX_PROMPT_BYTES} are taken")
    try:
        prompt = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the prompt is not valid UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}"
        ) from None
    if not any(character.isalnum() for character in prompt):
        raise InvalidInput("a prompt is needed, this one holds no word")
    return prompt


@dataclass(frozen=True)
class PromptGuardrail:
    """Checks prompts, in the order of `checks`, until one refuses."""

    name: str
    posture: Posture
    checks: Sequence[PromptCheck]
    observe: Observer | None = None

    def __post_init__(self) -> None:
        _require_checks(self.name, self.posture, self.checks)

    def check(self, prompt: str) -> Verdict:
        """Let a prompt through.

        Raises:
            Blocked: a check refused it, or failed.
        """
        started = time.perf_counter()
        told: dict[str, str] = {}
        for check in self.checks:
            with _failing_closed(self.name, check.name, self.observe, quotes=True):
                finding = check.find(prompt)
            if finding is not None:
                digest = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:12]
                _refuse(self.name, check.name, finding, f"prompt {digest}", self.observe)
            _observe(self.observe, self.name, check.name, "passed")
            told[check.name] = "passed"
        return Verdict(self.posture, told, time.perf_counter() - started)


@dataclass(frozen=True)
class VideoGuardrail:
    """Checks videos, then blurs the faces in those that pass."""

    name: str
    posture: Posture
    checks: Sequence[VideoCheck]
    faces: FaceBlur | None
    observe: Observer | None = None
    absent: Mapping[str, str] = field(default_factory=dict)  # checks that this posture lacks, and why

    def __post_init__(self) -> None:
        _require_checks(self.name, self.posture, [self.faces] if self.faces else [])

    def apply(self, frames: Frames) -> tuple[Frames, Verdict]:
        """Let a video through, its faces blurred.

        Args:
            frames: uint8 RGB [T, H, W, 3]; not written to.

        Raises:
            Blocked: a check refused it, or failed.
        """
        started = time.perf_counter()
        told = dict(self.absent)
        for check in self.checks:
            with _failing_closed(self.name, check.name, self.observe):
                finding = check.find(frames)
            if finding is not None:
                _refuse(self.name, check.name, finding, "a video", self.observe)
            _observe(self.observe, self.name, check.name, "passed")
            told[check.name] = "passed"
        count = 0
        if self.faces is not None:
            with _failing_closed(self.name, self.faces.name, self.observe):
                frames, count = self.faces.blur(frames)
            _observe(self.observe, self.name, self.faces.name, "changed" if count else "passed")
            told[self.faces.name] = "blurred" if count else "passed"
        return frames, Verdict(self.posture, told, time.perf_counter() - started, count)


def _require_checks(name: str, posture: Posture, checks: Sequence[Any]) -> None:
    if posture == "disabled":
        logger.warning("%s is DISABLED by its setting: nothing is checked", name)
    elif not checks:
        raise ConfigurationError(f"{name} in posture {posture!r} has no check loaded")


def _refuse(name: str, check: str, finding: Finding, what: str, observe: Observer | None) -> None:
    logger.warning("%s: %s blocked %s (%s)", name, check, what, finding.category)
    _observe(observe, name, check, "blocked")
    raise Blocked(name, finding.category, finding.reason)


@contextmanager
def _failing_closed(
    name: str, check: str, observe: Observer | None, *, quotes: bool = False
) -> Iterator[None]:
    """Whatever a check raises refuses the request; the trace goes to the log, not to the client.

    With `quotes`, where it failed and not what it said: that may quote the prompt.
    """
    try:
        yield
    except Exception as error:
        told = [*traceback.format_tb(error.__traceback__), type(error).__name__]
        trace = "".join(told) if quotes else "".join(traceback.format_exception(error))
        logger.error("%s: %s failed, so the request is refused\n%s", name, check, trace)
        _observe(observe, name, check, "failed")
        raise Blocked(
            name, "guardrail_failure", f"the check {check} failed and nothing passes unchecked"
        ) from error


def _observe(observe: Observer | None, name: str, check: str, verdict: str) -> None:
    if observe is not None:
        observe(name, check, verdict)
