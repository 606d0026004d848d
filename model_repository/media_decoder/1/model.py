"""media_decoder: One encoded file in; nine context frames, resized and cropped, out."""

from cosmos_triton.serving.adapter import StageModel
from cosmos_triton.serving.stages.media import MediaDecoder


class TritonPythonModel(StageModel):
    stage = MediaDecoder
