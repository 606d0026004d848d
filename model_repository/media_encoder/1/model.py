"""media_encoder: 33 frames in; an MP4 and the finished report out, beside the frames and tokens."""

from cosmos_triton.serving import MediaEncoder, StageModel


class TritonPythonModel(StageModel):
    stage = MediaEncoder
