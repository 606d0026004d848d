"""What a stage leaves behind on its GPU."""

import torch


def empty_cache(device: torch.device) -> None:
    """Give memory that PyTorch keeps for later back to the card, where other stages can use it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
