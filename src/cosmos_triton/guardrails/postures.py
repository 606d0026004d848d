"""From settings to guardrails: which checks each posture has."""

from cosmos_triton.guardrails.faces import OpenCVFaces, TrackedFaceBlur
from cosmos_triton.guardrails.interface import (
    GuardrailSettings,
    Observer,
    PromptGuardrail,
    VideoGuardrail,
)
from cosmos_triton.guardrails.wordlist import WordListCheck


def load_prompt_guardrail(settings: GuardrailSettings, observe: Observer | None = None) -> PromptGuardrail:
    """The guardrail of prompts in the posture asked for.

    Args:
        settings: posture, and where its models are.
        observe: told every check's verdict, for counters.

    Raises:
        CheckpointError: a model of the posture is missing or damaged.
        ConfigurationError: a package of the posture is not installed.
    """
    if settings.posture == "disabled":
        return PromptGuardrail(settings.name, "disabled", (), observe)
    if settings.posture == "built-in":
        return PromptGuardrail(settings.name, "built-in", (WordListCheck.load(),), observe)
    from cosmos_triton.guardrails import full  # torch and transformers, which the others do without

    word_list = WordListCheck.load()
    checks = (word_list, *full.prompt_checks(settings, word_list.rules))
    return PromptGuardrail(settings.name, "full", checks, observe)


def load_video_guardrail(settings: GuardrailSettings, observe: Observer | None = None) -> VideoGuardrail:
    """The guardrail of videos in the posture asked for; arguments and errors as above."""
    if settings.posture == "disabled":
        return VideoGuardrail(settings.name, "disabled", (), None, observe)
    if settings.posture == "built-in":
        absent = {"content_filter": "not in this posture"}
        blur = TrackedFaceBlur(OpenCVFaces(), every=3)  # a tenth of a second; each look takes as long
        return VideoGuardrail(settings.name, "built-in", (), blur, observe, absent)
    from cosmos_triton.guardrails import full

    content_filter, faces = full.video_models(settings)
    return VideoGuardrail(settings.name, "full", (content_filter,), TrackedFaceBlur(faces), observe)
