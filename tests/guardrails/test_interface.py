"""Fail closed, explain, count."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cosmos_triton.errors import Blocked, ConfigurationError, InvalidInput
from cosmos_triton.guardrails import (
    Finding,
    GuardrailSettings,
    PromptGuardrail,
    VideoGuardrail,
    decode_prompt,
    load_prompt_guardrail,
    load_video_guardrail,
)

FRAMES = np.zeros((2, 8, 8, 3), np.uint8)


@dataclass(frozen=True)
class Says:
    """A check with a fixed answer; an exception is raised."""

    answer: Finding | Exception | None
    name: str = "says"

    def find(self, what: object) -> Finding | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass(frozen=True)
class Blurs:
    """A face blur with a fixed count; an exception is raised."""

    count: int | Exception
    name: str = "face_blur"

    def blur(self, frames: np.ndarray) -> tuple[np.ndarray, int]:
        if isinstance(self.count, Exception):
            raise self.count
        return frames, self.count


def test_a_clean_prompt_passes_with_its_verdict():
    seen: list[tuple[str, str, str]] = []
    guardrail = PromptGuardrail(
        "prompt_guardrail", "built-in", (Says(None, "one"), Says(None, "two")), lambda *e: seen.append(e)
    )
    verdict = guardrail.check("a robot")
    told = verdict.as_dict()
    assert told.pop("seconds") >= 0
    assert told == {"posture": "built-in", "checks": {"one": "passed", "two": "passed"}}
    assert seen == [("prompt_guardrail", "one", "passed"), ("prompt_guardrail", "two", "passed")]


def test_a_refusal_names_stage_category_and_reason(caplog: pytest.LogCaptureFixture):
    seen: list[tuple[str, str, str]] = []
    checks = (Says(None, "one"), Says(Finding("violence", "it is too rough"), "two"), Says(None, "three"))
    with pytest.raises(Blocked) as blocked:
        PromptGuardrail("prompt_guardrail", "built-in", checks, lambda *e: seen.append(e)).check(
            "a secret prompt"
        )
    assert str(blocked.value) == "blocked by prompt_guardrail (violence): it is too rough"
    assert (blocked.value.stage, blocked.value.category) == ("prompt_guardrail", "violence")
    assert [event[1:] for event in seen] == [("one", "passed"), ("two", "blocked")]
    assert "secret" not in caplog.text
    assert "two blocked" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("secret trouble"), InvalidInput("secret"), MemoryError()])
def test_a_check_that_raises_refuses(error: Exception, caplog: pytest.LogCaptureFixture):
    seen: list[tuple[str, str, str]] = []
    with pytest.raises(Blocked, match="the check says failed") as blocked:
        PromptGuardrail("prompt_guardrail", "full", (Says(error),), lambda *e: seen.append(e)).check(
            "a robot"
        )
    assert blocked.value.category == "guardrail_failure"
    assert "secret" not in str(blocked.value)
    assert seen == [("prompt_guardrail", "says", "failed")]
    assert "line" in caplog.text
    assert type(error).__name__ in caplog.text
    assert "secret" not in caplog.text


def test_a_video_is_checked_then_blurred():
    seen: list[tuple[str, str, str]] = []
    guardrail = VideoGuardrail(
        "video_guardrail", "full", (Says(None, "content"),), Blurs(3), lambda *e: seen.append(e)
    )
    frames, verdict = guardrail.apply(FRAMES)
    assert frames is FRAMES
    assert verdict.as_dict()["checks"] == {"content": "passed", "face_blur": "blurred"}
    assert verdict.as_dict()["faces_blurred"] == 3
    assert seen[-1] == ("video_guardrail", "face_blur", "changed")


@pytest.mark.parametrize(
    ("check", "blur", "category"),
    [
        (Says(Finding("violence", "frame 3 shows it")), Blurs(0), "violence"),
        (Says(ValueError("x")), Blurs(0), "guardrail_failure"),
        (Says(None), Blurs(ValueError("x")), "guardrail_failure"),
    ],
)
def test_a_video_is_refused(check: Says, blur: Blurs, category: str, caplog: pytest.LogCaptureFixture):
    with pytest.raises(Blocked) as blocked:
        VideoGuardrail("video_guardrail", "full", (check,), blur).apply(FRAMES)
    assert ("Traceback" in caplog.text) is (category == "guardrail_failure")
    assert (blocked.value.stage, blocked.value.category) == ("video_guardrail", category)


def test_a_posture_without_checks_cannot_exist():
    with pytest.raises(ConfigurationError, match="has no check loaded"):
        PromptGuardrail("prompt_guardrail", "full", ())
    with pytest.raises(ConfigurationError, match="has no check loaded"):
        VideoGuardrail("video_guardrail", "built-in", (), None)


def test_disabled_is_explicit_logged_and_reported(caplog: pytest.LogCaptureFixture):
    settings = GuardrailSettings("disabled")
    with caplog.at_level(logging.WARNING):
        prompt, video = load_prompt_guardrail(settings), load_video_guardrail(settings)
    assert caplog.text.count("DISABLED") == 2
    assert prompt.check("a man kills a woman").as_dict()["posture"] == "disabled"
    frames, verdict = video.apply(FRAMES)
    assert frames is FRAMES
    assert verdict.as_dict()["checks"] == {}


def test_settings_are_validated():
    with pytest.raises(ConfigurationError, match="posture is 'off'"):
        GuardrailSettings("off")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="needs a checkpoint_dir"):
        GuardrailSettings("full")


def test_the_built_in_posture_loads_and_refuses():
    settings = GuardrailSettings("built-in", Path("/nowhere"))
    prompts = load_prompt_guardrail(settings)
    assert prompts.check("a robot arm lifts a cube").checks == {"word_list": "passed"}
    with pytest.raises(Blocked, match=r"blocked by guardrail \(violence\)"):
        prompts.check("a man kills a woman")
    _, verdict = load_video_guardrail(settings).apply(np.zeros((2, 64, 64, 3), np.uint8))
    assert verdict.as_dict()["checks"] == {"content_filter": "not in this posture", "face_blur": "passed"}


@pytest.mark.parametrize("raw", [b"", b"  \n\t", b"...!", "\u200b".encode()])
def test_a_blank_prompt(raw: bytes):
    with pytest.raises(InvalidInput, match="a prompt is needed"):
        decode_prompt(raw)


def test_a_prompt_of_ten_megabytes():
    with pytest.raises(InvalidInput, match="the prompt has 10485760 bytes, at most 16384 are taken"):
        decode_prompt(b"a" * 10 * 1024 * 1024)


def test_bytes_that_are_not_utf8():
    with pytest.raises(InvalidInput, match="not valid UTF-8: byte 0xff at position 2"):
        decode_prompt(b"ab\xff")


@pytest.mark.parametrize("text", ["a robot", "机器人", "🤖 robot"])
def test_text(text: str):
    assert decode_prompt(text.encode()) == text
