"""diffusion_decoder: Tokens in; the denoised latents of the same world out."""

from cosmos_triton.serving import DiffusionDecoderStage, StageModel


class TritonPythonModel(StageModel):
    stage = DiffusionDecoderStage
