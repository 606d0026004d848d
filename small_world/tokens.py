"""Drawn clips as tokens and latents: what the later networks learn from, made once with frozen tokenizers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cosmos_triton.checkpoints import CheckpointFolder
from cosmos_triton.networks import LatentStatistics
from small_world import scenes, weights
from small_world.autoencoder import TrainableTokenizer
from small_world.pool import CHUNK
from small_world.scenes import Scenes


@dataclass(frozen=True)
class Tokenizers:
    """Both tokenizers as a folder holds them, on a device."""

    discrete: TrainableTokenizer
    continuous: TrainableTokenizer
    statistics: LatentStatistics

    @classmethod
    def load(cls, folder: CheckpointFolder, device: torch.device) -> "Tokenizers":
        """From a folder in the published layout."""
        discrete, continuous = folder.discrete_tokenizer(), folder.continuous_tokenizer()
        mean, std = folder.mean_std()
        return cls(
            weights.read_tokenizer(discrete).to(device).requires_grad_(False),
            weights.read_tokenizer(continuous).to(device).requires_grad_(False),
            LatentStatistics(mean, std, continuous.architecture.latent_channels).to(device),
        )

    @torch.no_grad()
    def tokens(self, video: Tensor) -> Tensor:
        """uint8 [N, T, H, W, 3] → ids [N, t, h, w] int16."""
        return self.discrete.tokens(self.discrete.encode(_signed(video))).to(torch.int16)

    @torch.no_grad()
    def latents(self, video: Tensor) -> Tensor:
        """uint8 [N, T, H, W, 3] → normalised latents [N, C, t, h, w] float16."""
        raw = self.continuous.encode(_signed(video)).movedim(-1, 1)
        return self.statistics.normalise(raw).to(torch.float16)


@dataclass(frozen=True)
class World:
    """Many clips: their scenes (on the CPU), tokens, and latents where they were asked for."""

    scenes: Scenes
    tokens: Tensor  # [N, t, h, w] int16
    latents: Tensor | None  # [N, C, t, h, w] float16


def tokenize(tokenizers: Tokenizers, chosen: Scenes, device: torch.device, latents: bool = False) -> World:
    """Draw scenes and keep what the tokenizers make of them; a chunk of pictures is in memory at a time."""
    ids, codes = [], []
    for start in range(0, len(chosen), CHUNK):
        video = scenes.draw(chosen[start : start + CHUNK].to(device)).video
        ids.append(tokenizers.tokens(video))
        if latents:
            codes.append(tokenizers.latents(video))
    return World(chosen, torch.cat(ids), torch.cat(codes) if latents else None)


class Fresh:
    """New clips without end, a few at each call: so no clip has to be learned from often.

    Args:
        seed: the clips' seeds begin here.
        count: clips a call.
        events: see `scenes.sample`.
        latents: whether latents are wanted too.
    """

    def __init__(
        self,
        tokenizers: Tokenizers,
        device: torch.device,
        seed: int,
        count: int,
        events: float,
        latents: bool,
    ) -> None:
        self.tokenizers, self.device, self.seed, self.count = tokenizers, device, seed, count
        self.events, self.latents = events, latents

    def __call__(self) -> World:
        """`count` clips that were not there before."""
        self.seed += 1
        chosen = scenes.sample(self.count, self.seed, self.events)
        return tokenize(self.tokenizers, chosen, self.device, self.latents)


REFRESH = 8  # steps between two calls of `Fresh`


def _signed(video: Tensor) -> Tensor:
    return video.float() / 127.5 - 1
