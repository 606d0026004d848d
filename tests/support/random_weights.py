"""Weight files of any size without holding them in memory."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

_BLOCK = 1 << 24  # numbers drawn; a larger tensor repeats them, at another place for every repetition


def write_random_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], scale: float = 0.02) -> None:
    """A safetensors file of bfloat16 numbers. Zeros would not do: builders store equal weights once."""
    offset, header = 0, {}
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (offset, offset + size)}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    block = (scale * torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0))).bfloat16()
    content = block.view(torch.uint8).numpy().tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        written = start = 0
        while written < offset:
            piece = content[start : start + offset - written]
            written += file.write(piece)
            start = (start + 2 * 999_983) % len(content)  # an odd step: no two repetitions line up
