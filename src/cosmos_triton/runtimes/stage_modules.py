"""The five networks that are stages of their own, each as a module with the stage's own tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import DiffusionDecoderArchitecture, TextEncoderArchitecture
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.diffusion.transformer import DiffusionDenoiser, load_diffusion_transformer
from cosmos_triton.geometry import CONTEXT_FRAMES, VideoGeometry
from cosmos_triton.networks.continuous_tokenizer import (
    LatentDecoder,
    LatentStatistics,
    load_continuous_decoder,
)
from cosmos_triton.networks.discrete_tokenizer import (
    VideoDecoder,
    VideoEncoder,
    load_discrete_decoder,
    load_discrete_encoder,
)
from cosmos_triton.networks.text_encoder import load_text_encoder


@dataclass(frozen=True)
class StageModule:
    """How to build one stage's module, call it, and take it apart.

    Args:
        load: the module with its weights, cast to a type, or as published for None.
        inputs: the stage's input tensors, in the order of the module's arguments.
        output: the stage's output tensor.
        example: arguments of the right shape and type for a folder and a size of video.
        blocks: submodules that run one after the other, once each; none for a shallow network.
        read_on_gpu: whether stages on a GPU read the output. All others are handed over on the host,
            where their readers are.
        precision: type of weights and activations on a GPU. The encoder's is float32: bfloat16 changes
            4 % of the token ids (benchmarks/results/tokenizer_precision_cpu.json).
    """

    load: Callable[[CheckpointFolder, torch.dtype | None], nn.Module]
    inputs: tuple[str, ...]
    output: str
    example: Callable[[CheckpointFolder, VideoGeometry], tuple[Tensor, ...]]
    blocks: Callable[[nn.Module], Sequence[nn.Module]] = lambda module: ()
    read_on_gpu: bool = False
    precision: torch.dtype = torch.bfloat16


def _load_video_encoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    tokenizer = folder.discrete_tokenizer()
    return VideoEncoder(load_discrete_encoder(tokenizer.architecture, tokenizer.tensors, dtype)).eval()


def _load_video_decoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    tokenizer = folder.discrete_tokenizer()
    return VideoDecoder(load_discrete_decoder(tokenizer.architecture, tokenizer.tensors, dtype)).eval()


def _load_text_encoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    encoder = folder.text_encoder()
    return load_text_encoder(encoder.architecture, encoder.tensors, dtype)


def _load_diffusion_denoiser(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    decoder = folder.diffusion_decoder()
    return DiffusionDenoiser(load_diffusion_transformer(decoder.architecture, decoder.tensors, dtype)).eval()


def _load_latent_decoder(folder: CheckpointFolder, dtype: torch.dtype | None) -> nn.Module:
    tokenizer = folder.continuous_tokenizer()
    mean, std = folder.mean_std()
    statistics = LatentStatistics(mean, std, tokenizer.architecture.latent_channels)
    decoder = load_continuous_decoder(tokenizer.architecture, tokenizer.tensors, dtype)
    return LatentDecoder(decoder, statistics).eval()


def _prompt(folder: CheckpointFolder, geometry: VideoGeometry) -> tuple[Tensor, ...]:
    architecture: TextEncoderArchitecture = folder.text_encoder().architecture
    ids = torch.zeros(architecture.max_tokens, dtype=torch.int32)
    return ids, torch.ones_like(ids)


def _denoiser_inputs(folder: CheckpointFolder, geometry: VideoGeometry) -> tuple[Tensor, ...]:
    architecture: DiffusionDecoderArchitecture = folder.diffusion_decoder().architecture
    frames, (_, rows, columns) = architecture.window, geometry.token_shape
    return (
        torch.zeros(architecture.latent_channels, frames, *geometry.latent_plane),
        torch.zeros(1),
        torch.zeros(frames, rows, columns, dtype=torch.int32),
        torch.zeros(512, architecture.text_dim),
    )


STAGE_MODULES: dict[str, StageModule] = {
    "video_encoder": StageModule(
        load=_load_video_encoder,
        inputs=("frames",),
        output="tokens",
        example=lambda _, video: (torch.zeros(3, CONTEXT_FRAMES, video.height, video.width),),
        precision=torch.float32,
    ),
    "video_decoder": StageModule(
        load=_load_video_decoder,
        inputs=("tokens",),
        output="frames",
        example=lambda _, video: (torch.zeros(video.token_shape, dtype=torch.int32),),
    ),
    "text_encoder": StageModule(
        load=_load_text_encoder,
        inputs=("input_ids", "attention_mask"),
        output="text_embeddings",
        example=_prompt,
        blocks=lambda module: list(module.get_submodule("encoder.block").children()),
        read_on_gpu=True,
    ),
    "diffusion_denoiser": StageModule(
        load=_load_diffusion_denoiser,
        inputs=("latents", "timestep", "tokens", "text_embeddings"),
        output="predictions",
        example=_denoiser_inputs,
        blocks=lambda module: list(module.get_submodule("network.transformer.transformer_blocks").children()),
    ),
    "latent_decoder": StageModule(
        load=_load_latent_decoder,
        inputs=("latents",),
        output="frames",
        example=lambda folder, video: (
            torch.zeros(
                folder.continuous_tokenizer().architecture.latent_channels,
                video.token_shape[0],
                *video.latent_plane,
            ),
        ),
    ),
}
"""By the name of the Triton model."""
