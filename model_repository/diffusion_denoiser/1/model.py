"""diffusion_denoiser, where no TensorRT engine runs it: the same network through another runtime."""

from cosmos_triton.serving import NetworkStage, StageModel


class TritonPythonModel(StageModel):
    stage = NetworkStage
    reports = False
