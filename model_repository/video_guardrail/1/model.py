"""video_guardrail: 33 frames in; the same frames with faces blurred out, or a refusal."""

from cosmos_triton.serving import MeteredStageModel, VideoGuardrailStage


class TritonPythonModel(MeteredStageModel):
    stage = VideoGuardrailStage
