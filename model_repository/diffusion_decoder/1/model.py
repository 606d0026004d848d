"""diffusion_decoder: Tokens in; the denoised latents of the same world out."""

from cosmos_triton.serving.adapter import StageModel
from cosmos_triton.serving.stages.diffusion import DiffusionDecoderStage


class TritonPythonModel(StageModel):
    stage = DiffusionDecoderStage
