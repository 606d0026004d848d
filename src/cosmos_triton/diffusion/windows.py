"""Fixed windows over a world's frames: the diffusion network always sees the same number.

A world of 5 latent frames fills its one window of 8 by reflection: 0 1 2 3 4 3 2 1. The three
extra frames matter, because the others attend to them. Longer worlds take several windows, whose
pixels are blended; no published model makes one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def reflect_to_window(tokens: Tensor, window: int) -> Tensor:
    """One window of tokens, reflected at its end where the world is shorter.

    Args:
        tokens: [T, h, w] with window / 2 < T <= window.
        window: latent frames the network sees.

    Returns:
        [window, h, w].

    Raises:
        ValueError: T frames cannot fill the window by one reflection.
    """
    frames = tokens.shape[0]
    if frames > window:
        raise ValueError(f"{frames} latent frames exceed one window of {window}")
    return tokens[_reflect(range(frames), window)]


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
    return [_reflect(range(start, frames), window) for start in range(0, frames - overlap, window - overlap)]


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


def _reflect(source: range, window: int) -> list[int]:
    missing = window - len(source)
    if missing <= 0:
        return list(source[:window])
    if missing >= len(source):
        raise ValueError(f"{len(source)} latent frames cannot fill a window of {window} by reflection")
    return [*source, *reversed(source[-1 - missing : -1])]
