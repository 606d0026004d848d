"""Guardrails: what a request may ask for and what may leave the server.

    posture     prompt                                   video
    full        word list, Cosmos blocklist, LLM guard   content filter (SigLIP), faces (RetinaFace)
    built-in    word list                                faces (OpenCV)
    disabled    nothing                                  nothing, and every report says so

A posture whose models are missing or damaged does not load (`CheckpointError` names what to
download), and a check that fails at run time refuses its request: there is no state in which
nothing is loaded and everything passes.
"""

from cosmos_triton.guardrails.interface import (
    MAX_PROMPT_BYTES,
    Finding,
    GuardrailSettings,
    Observer,
    Posture,
    PromptGuardrail,
    Verdict,
    VideoGuardrail,
    decode_prompt,
)
from cosmos_triton.guardrails.postures import load_prompt_guardrail, load_video_guardrail
from cosmos_triton.guardrails.published import GUARDRAIL, SIGLIP, TEXT_GUARD, Published

__all__ = [
    "GUARDRAIL",
    "MAX_PROMPT_BYTES",
    "SIGLIP",
    "TEXT_GUARD",
    "Finding",
    "GuardrailSettings",
    "Observer",
    "Posture",
    "PromptGuardrail",
    "Published",
    "Verdict",
    "VideoGuardrail",
    "decode_prompt",
    "load_prompt_guardrail",
    "load_video_guardrail",
]
