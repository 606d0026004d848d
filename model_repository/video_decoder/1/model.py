"""video_decoder, where no TensorRT engine runs it: the same network through another runtime."""

from cosmos_triton.serving.adapter import StageModel
from cosmos_triton.serving.stages.network import NetworkStage


class TritonPythonModel(StageModel):
    stage = NetworkStage
    reports = False
