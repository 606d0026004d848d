"""video_guardrail: 33 frames in; the same frames with faces blurred out, or a refusal."""

from cosmos_triton.serving.adapter import StageModel
from cosmos_triton.serving.stages.guardrails import VideoGuardrailStage


class TritonPythonModel(StageModel):
    stage = VideoGuardrailStage
