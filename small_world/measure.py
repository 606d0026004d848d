"""Measures of a folder of small networks, through the classes and loaders that serve them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cosmos_triton.checkpoints import AUTOREGRESSIVE_FAMILY, DIFFUSION_DECODER_FAMILY, CheckpointFolder
from cosmos_triton.networks import (
    load_continuous_decoder,
    load_continuous_encoder,
    load_discrete_decoder,
    load_discrete_encoder,
    to_uint8,
)
from small_world import worlds
from small_world.pool import held_out
from small_world.scenes import Clips, Scenes
from small_world.tokenizers import Again, judge

SHEET_FRAMES = (0, 8, 16, 24, 32)


def discrete_tokenizer(folder: CheckpointFolder, device: torch.device) -> Again:
    """The discrete tokenizer there and back, as it is served."""
    found = folder.discrete_tokenizer()
    encoder = load_discrete_encoder(found.architecture, found.tensors, torch.float32).to(device)
    decoder = load_discrete_decoder(found.architecture, found.tensors, torch.float32).to(device)
    return lambda video: _there_and_back(encoder, decoder, video)


def continuous_tokenizer(folder: CheckpointFolder, device: torch.device) -> Again:
    """The continuous tokenizer there and back, as it is served."""
    found = folder.continuous_tokenizer()
    encoder = load_continuous_encoder(found.architecture, found.tensors, torch.float32).to(device)
    decoder = load_continuous_decoder(found.architecture, found.tensors, torch.float32).to(device)
    return lambda video: _there_and_back(encoder, decoder, video)


def tokenizers(folder: CheckpointFolder, chosen: Scenes, clips: Clips) -> dict[str, Any]:
    """Both tokenizers on clips, in float32 on the clips' device."""
    device = clips.video.device
    codebook = folder.discrete_tokenizer().architecture.codebook_size
    return {
        "discrete": judge(discrete_tokenizer(folder, device), chosen, clips, codebook, batch=1),
        "continuous": judge(continuous_tokenizer(folder, device), chosen, clips, batch=1),
    }


def reconstruction_sheet(folder: CheckpointFolder, clips: Clips) -> Image.Image:
    """For each clip a row of frames: the truth, the discrete and the continuous tokenizer's picture of it."""
    device = clips.video.device
    ways = (discrete_tokenizer(folder, device), continuous_tokenizer(folder, device))
    rows = []
    for i in range(len(clips.video)):
        video = clips.video[i : i + 1]
        rows += [frames(video[0]), *(frames(way(video)[0][0]) for way in ways)]
    return Image.fromarray(np.concatenate(rows))


def frames(video: Tensor, numbers: tuple[int, ...] = SHEET_FRAMES) -> NDArray[np.uint8]:
    """Frames of uint8 video [T, H, W, 3] side by side: [H, n W, 3]."""
    return np.concatenate([video[n].cpu().numpy() for n in numbers], axis=1)


def measure(folder: Path, count: int, seed: int, device: torch.device, output: Path) -> dict[str, Any]:
    """Measures what the folder holds on `count` clips that training has not seen; writes JSON and a sheet."""
    output.mkdir(parents=True, exist_ok=True)
    checkpoints = CheckpointFolder(folder)
    chosen, clips = held_out(count, device, seed)
    few = Clips(clips.video[:8], clips.labels[:8])
    reconstruction_sheet(checkpoints, few).save(output / "tokenizers.png")
    measures = {"clips": count, "seed": seed} | tokenizers(checkpoints, chosen, clips)
    families = {component.family for component in checkpoints.components}
    transformers = [c for c in checkpoints.components if c.family is AUTOREGRESSIVE_FAMILY]
    models = worlds.Models(checkpoints, device)
    if any(not c.architecture.is_video2world for c in transformers):
        measures["base"] = worlds.positions(models, count, seed, output / "nine_frames.png")
        worlds.pictures_go_on(models, min(count, 100), seed, output / "one_picture.png")
    if any(c.architecture.is_video2world for c in transformers):
        each = -(-min(count, 100) // 8)  # four kinds of event, two prompts each
        measures["video2world"] = worlds.prompts_decide(models, each, seed, output / "prompts.png")
    if DIFFUSION_DECODER_FAMILY in families:
        measures["decoders"] = worlds.diffusion(models, min(count, 40), seed, output / "decoders.png")
    (output / "measures.json").write_text(json.dumps(measures, indent=2) + "\n")
    return measures


@torch.no_grad()
def _there_and_back(encoder: Any, decoder: Any, video: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, T, H, W, 3] → reconstruction, uint8 likewise, and tokens or latents; one clip at a time."""
    again, codes = [], []
    for clip in video:
        signed = (clip.float() / 127.5 - 1).permute(3, 0, 1, 2)[None]  # [1, 3, T, H, W]
        codes.append(encoder(signed))
        again.append(to_uint8(decoder(codes[-1])))
    return torch.stack(again), torch.cat(codes)
