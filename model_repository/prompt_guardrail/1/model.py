"""prompt_guardrail: A prompt in; the same prompt out, or a refusal."""

from cosmos_triton.serving.adapter import MeteredStageModel
from cosmos_triton.serving.stages.guardrails import PromptGuardrailStage


class TritonPythonModel(MeteredStageModel):
    stage = PromptGuardrailStage
