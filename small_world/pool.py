"""Drawn clips kept on the device: drawn once, used several times, and replaced little by little."""

from dataclasses import fields

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


def held_out(count: int, device: torch.device, seed: int = 0, events: float = 0.5) -> tuple[Scenes, Clips]:
    """Clips that are never trained on: `count` scenes and their pictures, both on the device."""
    chosen = scenes.sample(count, HELD_OUT + seed, events)
    drawn = [scenes.draw(chosen[i : i + CHUNK].to(device)) for i in range(0, count, CHUNK)]
    return chosen, Clips(*(torch.cat([getattr(d, f.name) for d in drawn]) for f in fields(Clips)))
