"""Frames as people see them (uint8) and as the networks do (float, [-1, 1]).

The arithmetic is that of the reference, step by step, so that the same file gives the same tokens:
bytes to [-1, 1], an antialiased bilinear resize that covers the target, a centred crop; and back
by truncation.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cosmos_triton.errors import InvalidInput
from cosmos_triton.geometry import CONTEXT_FRAMES

# A strip of 1x5000 pixels would be blown up to gigabytes, of which a thousandth is kept.
MAX_CROPPED_AWAY = 32


def preprocess(frames: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """Frames at the size and range of the networks.

    Args:
        frames: uint8 RGB [n, H, W, 3] of any size.
        height, width: pixels of the model's video.

    Returns:
        float32 [3, n, height, width]; nominally [-1, 1], the resize may exceed it by an ulp.

    Raises:
        InvalidInput: the picture is so elongated that less than 1/32 of it would be kept.
    """
    source = (frames.shape[1], frames.shape[2])
    size = resized_size(source, (height, width))
    if size[0] * size[1] > MAX_CROPPED_AWAY * height * width:
        raise InvalidInput(
            f"the picture is {source[1]}x{source[0]} pixels, too elongated for a {width}x{height} video"
        )
    top, left = _centred(size[0] - height), _centred(size[1] - width)
    out = torch.empty(3, len(frames), height, width)
    for index, frame in enumerate(frames):  # one by one: nine 4K frames in float32 are a gigabyte
        pixels = torch.tensor(frame).permute(2, 0, 1)[None].float() / 255.0 * 2.0 - 1.0  # [1, 3, H, W]
        if size != source:
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        out[:, index] = pixels[0, :, top : top + height, left : left + width]
    return out


def resized_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) to which a picture is resized before the crop: it covers the target.

    Computed in floats with ceil, as in the reference: a few sizes (height 281 to 640, say) come
    out one pixel larger than exact arithmetic gives, and the same pixels depend on it.
    """
    ratio = max(target[1] / source[1], target[0] / source[0])
    return math.ceil(ratio * source[0]), math.ceil(ratio * source[1])


def context_frames(frames: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """What the video encoder sees: `preprocess`, with a single frame repeated to nine.

    The tokenizer is causal: of nine equal frames, the first latent is that of the one frame.

    Args:
        frames: uint8 RGB [1 or 9, H, W, 3].

    Returns:
        float32 [3, 9, height, width].
    """
    if len(frames) not in (1, CONTEXT_FRAMES):
        raise ValueError(f"context of {len(frames)} frames, must be 1 or {CONTEXT_FRAMES}")
    return preprocess(frames, height, width).expand(3, CONTEXT_FRAMES, height, width).contiguous()


def to_uint8(video: Tensor) -> NDArray[np.uint8]:
    """A network's video as bytes.

    Args:
        video: float [3, T, H, W], nominally [-1, 1]; values outside are clamped.

    Returns:
        uint8 [T, H, W, 3].
    """
    return unit_to_uint8((1.0 + video.clamp(-1, 1)) / 2.0)


def unit_to_uint8(video: Tensor) -> NDArray[np.uint8]:
    """A video in [0, 1] as bytes, by truncation: 254.9 is 254, as in the reference.

    Args:
        video: float [3, T, H, W] in [0, 1].

    Returns:
        uint8 [T, H, W, 3].
    """
    frames = (video * 255.0).to(torch.uint8).permute(1, 2, 3, 0)  # [3, T, H, W] -> [T, H, W, 3]
    return frames.contiguous().cpu().numpy()


def _centred(excess: int) -> int:
    """First pixel kept of a centred crop; Python's round is half to even, as the reference's is."""
    return round(excess / 2.0)
