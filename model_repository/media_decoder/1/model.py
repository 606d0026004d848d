"""media_decoder: One encoded file in; nine context frames, resized and cropped, out."""

from cosmos_triton.serving import MediaDecoder, StageModel


class TritonPythonModel(StageModel):
    stage = MediaDecoder
