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
from cosmos_triton.media.limits import Deadline

# A strip of 1x5000 pixels would be blown up to gigabytes, of which a thousandth is kept.
MAX_CROPPED_AWAY = 32

_BAND_PIXELS = 1 << 20  # resized at a time: 12 MB in float32
_NETWORK_VALUES = np.arange(256, dtype=np.float32) / np.float32(255) * 2 - 1  # of each byte


def preprocess(
    frames: NDArray[np.uint8], height: int, width: int, deadline: Deadline | None = None
) -> Tensor:
    """Frames at the size and range of the networks.

    Args:
        frames: uint8 RGB [n, H, W, 3] of any size.
        height, width: pixels of the model's video.
        deadline: checked before each frame.

    Returns:
        float32 [3, n, height, width]; nominally [-1, 1], the resize may exceed it by an ulp.

    Raises:
        InvalidInput: the picture is so elongated that less than 1/32 of it would be kept, or time is up.
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
        if deadline:
            deadline.check()
        narrow = _resized_across(frame, size[1], slice(left, left + width))
        out[:, index] = _resized_down(narrow, size[0], slice(top, top + height))
    return out


# A resize is one across followed by one down. Rows do not mix in the first, nor columns in the second:
# band by band they give the pixels of the whole, to the last bit, without the whole in float32.


def _resized_across(frame: NDArray[np.uint8], width: int, kept: slice) -> Tensor:
    """A frame [H, W, 3] resized to `width` columns, of which some are kept → [3, H, kept]."""
    rows = max(1, _BAND_PIXELS // frame.shape[1])
    out = torch.empty(3, len(frame), kept.stop - kept.start)
    for top in range(0, len(frame), rows):
        band = frame[top : top + rows].transpose(2, 0, 1)  # [h, W, 3] -> [3, h, W]
        pixels = torch.from_numpy(_NETWORK_VALUES[band])
        out[:, top : top + rows] = _resized(pixels, (pixels.shape[1], width))[..., kept]
    return out


def _resized_down(pixels: Tensor, height: int, kept: slice) -> Tensor:
    """Pixels [3, H, W] resized to `height` rows, of which some are kept → [3, kept, W]."""
    columns = max(4, _BAND_PIXELS // max(height, pixels.shape[1]))
    count = math.ceil(pixels.shape[2] / columns)  # of nearly equal bands: PyTorch gets a single column wrong
    bands = torch.tensor_split(pixels, count, dim=2)
    return torch.cat([_resized(band, (height, band.shape[2]))[:, kept] for band in bands], dim=2)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if pixels.shape[1:] == size:
        return pixels
    return F.interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def resized_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) to which a picture is resized before the crop: it covers the target.

    Computed in floats with ceil, as in the reference: a few sizes (height 281 to 640, say) come
    out one pixel larger than exact arithmetic gives, and the same pixels depend on it.
    """
    ratio = max(target[1] / source[1], target[0] / source[0])
    return math.ceil(ratio * source[0]), math.ceil(ratio * source[1])


def context_frames(
    frames: NDArray[np.uint8], height: int, width: int, deadline: Deadline | None = None
) -> Tensor:
    """What the video encoder sees: `preprocess`, with a single frame repeated to nine.

    The tokenizer is causal: of nine equal frames, the first latent is that of the one frame.

    Args:
        frames: uint8 RGB [1 or 9, H, W, 3].
        height, width, deadline: see `preprocess`.

    Returns:
        float32 [3, 9, height, width].
    """
    if len(frames) not in (1, CONTEXT_FRAMES):
        raise ValueError(f"context of {len(frames)} frames, must be 1 or {CONTEXT_FRAMES}")
    return preprocess(frames, height, width, deadline).expand(3, CONTEXT_FRAMES, height, width).contiguous()


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
