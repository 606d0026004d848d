"""prompt_guardrail: A prompt in; the same prompt out, or a refusal."""

from cosmos_triton.serving import MeteredStageModel, PromptGuardrailStage


class TritonPythonModel(MeteredStageModel):
    stage = PromptGuardrailStage
