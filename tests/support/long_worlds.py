"""What the published pipeline does with worlds longer than its network sees: for parity only.

Such a world takes several windows, whose pixels are blended. No published model makes one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cosmos_triton.diffusion.padding import reflected


def window_frames(frames: int, window: int, overlap: int) -> list[list[int]]:
    """The source frame of every frame of every window.

    Args:
        frames: length of the world.
        window: length of a window.
        overlap: frames that consecutive windows share, less than `window`.

    Returns:
        One list of `window` frame numbers per window; none if frames <= overlap.

    Raises:
        ValueError: the last window cannot be filled by one reflection.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"an overlap of {overlap} does not fit windows of {window}")
    return [reflected(range(start, frames), window) for start in range(0, frames - overlap, window - overlap)]


def blend_windows(videos: Sequence[Tensor], overlap: int) -> Tensor:
    """Consecutive windows as one video, cross-faded linearly from weight 0 to weight 1.

    The end points are inclusive, so an overlap of 1 keeps the earlier frame and one of 2 is a cut.

    Args:
        videos: two or more of [B, C, T, H, W], equal in shape.
        overlap: frames shared by neighbours; 2 * overlap <= T if there are more than two videos.

    Returns:
        [B, C, N T - (N - 1) overlap, H, W] float32.
    """
    if len(videos) < 2:
        raise ValueError(f"blending needs two videos, not {len(videos)}")
    frames = videos[0].shape[2]
    if overlap > frames or (len(videos) > 2 and 2 * overlap > frames):
        raise ValueError(f"{len(videos)} windows of {frames} frames cannot overlap by {overlap}")
    weights = torch.linspace(0, 1, overlap).reshape(1, 1, -1, 1, 1)
    blended = videos[0].float()
    for video in videos[1:]:
        kept = blended.shape[2] - overlap
        faded = (1 - weights) * blended[:, :, kept:] + weights * video[:, :, :overlap]
        blended = torch.cat([blended[:, :, :kept], faded, video[:, :, overlap:].float()], dim=2)
    return blended
