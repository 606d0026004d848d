"""Drawn clips kept on the device: drawn once, used several times, and replaced little by little."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from small_world import scenes
from small_world.scenes import Clips, Scenes

CHUNK = 40  # clips drawn at once

HELD_OUT = 1 << 40  # seeds from here on are never trained on


class ClipPool:
    """Clips of endless seeds, `size` of them at a time.

    Args:
        size: clips kept; a clip takes 5.4 MB.
        seed: where the seeds of the chunks begin.
        device: where they are drawn and kept.
        events: see `scenes.sample`.
    """

    def __init__(self, size: int, seed: int, device: torch.device, events: float = 0.5) -> None:
        self.size, self.events, self.device = size, events, device
        self.next_seed = seed * (1 << 20)  # a million chunks a seed
        shape = (size, scenes.FRAMES, scenes.HEIGHT, scenes.WIDTH)
        self.video = torch.empty(*shape, 3, dtype=torch.uint8, device=device)
        self.labels = torch.empty(shape, dtype=torch.uint8, device=device)
        self.place = 0
        self.drawn = 0
        while self.drawn < size:
            self.refresh()

    def refresh(self, count: int = CHUNK) -> None:
        """Replace the oldest clips by new ones."""
        count = min(count, self.size - self.place)
        clips = scenes.draw(scenes.sample(count, self.next_seed, self.events).to(self.device))
        self.video[self.place : self.place + count] = clips.video
        self.labels[self.place : self.place + count] = clips.labels
        self.place = (self.place + count) % self.size
        self.next_seed += 1
        self.drawn += count

    def batch(self, index: Tensor) -> Clips:
        """The clips at `index` [N], on the device."""
        return Clips(self.video[index], self.labels[index])


class FilmedPool:
    """Pieces of one's own videos, with the interface of `ClipPool`; nothing in them is labelled.

    Args:
        directory: searched for .mp4 files of at least 33 frames.

    Raises:
        FileNotFoundError: there is none.
    """

    def __init__(self, directory: Path, device: torch.device, stride: int = 8) -> None:
        pieces = [piece for path in sorted(directory.rglob("*.mp4")) for piece in _pieces(path, stride)]
        if not pieces:
            raise FileNotFoundError(f"{directory} holds no .mp4 file of at least {scenes.FRAMES} frames")
        self.video = torch.stack(pieces).to(device)
        self.labels = torch.zeros(self.video.shape[:-1], dtype=torch.uint8, device=device)
        self.size = len(pieces)

    def refresh(self) -> None:
        """Nothing: the videos are what they are."""

    def batch(self, index: Tensor) -> Clips:
        """The pieces at `index` [N], on the device."""
        return Clips(self.video[index], self.labels[index])


def _pieces(path: Path, stride: int) -> Iterator[Tensor]:
    """Every 33 frames that begin at a multiple of `stride`, at the worlds' size: uint8 [T, H, W, 3]."""
    import av  # drawn clips do without it, and so may the machine that trains on them

    from cosmos_triton.media import preprocess, to_uint8

    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for start in range(0, len(decoded) - scenes.FRAMES + 1, stride):
        frames = np.stack(decoded[start : start + scenes.FRAMES])
        yield torch.from_numpy(to_uint8(preprocess(frames, scenes.HEIGHT, scenes.WIDTH)))


def held_out(count: int, device: torch.device, seed: int = 0, events: float = 0.5) -> tuple[Scenes, Clips]:
    """Clips that are never trained on: `count` scenes and their pictures, both on the device."""
    chosen = scenes.sample(count, HELD_OUT + seed, events)
    drawn = [scenes.draw(chosen[i : i + CHUNK].to(device)) for i in range(0, count, CHUNK)]
    return chosen, Clips(*(torch.cat([getattr(d, f.name) for d in drawn]) for f in fields(Clips)))
