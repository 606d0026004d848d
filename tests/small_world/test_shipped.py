"""The networks that ship: found by the loader, and as good as they were measured to be."""

from pathlib import Path

import torch

import small_world
from cosmos_triton.checkpoints.folder import CheckpointFolder
from small_world import measure, scenes
from small_world.pool import HELD_OUT
from small_world.tokenizers import judge

FOLDER = Path(small_world.__file__).parent / "weights"


def test_shipped_tokenizers_are_found_and_show_what_they_are_shown() -> None:
    folder = CheckpointFolder(FOLDER)
    chosen = scenes.sample(12, HELD_OUT)[:1]
    clips = scenes.draw(chosen)
    device = torch.device("cpu")

    discrete = judge(measure.discrete_tokenizer(folder, device), chosen, clips)
    continuous = judge(measure.continuous_tokenizer(folder, device), chosen, clips)

    assert discrete["psnr"] > 29
    assert discrete["psnr_objects"] > 22
    assert continuous["psnr"] > 31
    assert continuous["psnr_objects"] > 23
    assert not any(component.problem for component in folder.components)
