"""Where a token is: rotary angles over the (T, H, W) grid, YaRN, and absolute positions.

A sequence is the video's tokens, t-major then h then w; in Video2World models the begin-of-video token
stands before them. Its row and the padding rows have angle zero and position zero: they are not rotated and
nothing is added to them.
"""

import math

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture, Yarn

_ABSOLUTE_THETA = 10_000.0


def axis_widths(width: int) -> tuple[int, int, int]:
    """How `width` channels divide over t, h and w: h and w take width // 6 * 2 each, t the rest."""
    spatial = width // 6 * 2
    return width - 2 * spatial, spatial, spatial


def inverse_frequencies(width: int, theta: float) -> Tensor:
    """theta^(-2j / width) for j < width / 2: [width / 2] float64."""
    return theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)


def interpolate(frequencies: Tensor, yarn: Yarn, original_length: int) -> Tensor:
    """YaRN (arXiv 2309.00071): divide the slow frequencies by the scale, keep the fast, blend between.

    A frequency counts as fast when it turns more than `beta_fast` times over the original length.
    """
    slow = 2 * math.pi * yarn.beta_slow / original_length
    fast = 2 * math.pi * yarn.beta_fast / original_length
    kept = ((frequencies - slow) / (fast - slow)).clamp(0, 1)
    return frequencies * ((1 - kept) / yarn.scale + kept)


def axis_frequencies(architecture: AutoregressiveArchitecture) -> tuple[Tensor, Tensor]:
    """Inverse frequencies of the temporal axis and of both spatial axes: [width / 2] float64 each.

    Height and width share one vector, and YaRN measures both by the original height: the published
    models were trained so.
    """
    temporal_width, spatial_width, _ = axis_widths(architecture.head_dim)
    temporal = inverse_frequencies(temporal_width, architecture.rope_theta)
    spatial = inverse_frequencies(spatial_width, architecture.rope_theta)
    if architecture.yarn is not None:
        frames, rows, _ = architecture.yarn.original_shape
        temporal = interpolate(temporal, architecture.yarn, frames)
        spatial = interpolate(spatial, architecture.yarn, rows)
    return temporal, spatial


def rotary_angles(architecture: AutoregressiveArchitecture) -> Tensor:
    """Angles of every position, frequencies of t, h and w in turn: [max_sequence, head_dim / 2] float64."""
    temporal, spatial = axis_frequencies(architecture)
    t, h, w = _grid(architecture)  # [video_tokens] each
    video = torch.cat([t[:, None] * temporal, h[:, None] * spatial, w[:, None] * spatial], dim=1)
    return _in_sequence(video, architecture)


def absolute_positions(architecture: AutoregressiveArchitecture) -> Tensor:
    """Sines and cosines of t, h, w, added to the residual before every layer: [max_sequence, dim] bfloat16.

    bfloat16 whatever the network's type: the published models were trained with the rounded table.
    """
    video = torch.cat(
        [
            _waves(p, width)
            for p, width in zip(_grid(architecture), axis_widths(architecture.dim), strict=True)
        ],
        dim=1,
    )
    return _in_sequence(video, architecture).to(torch.bfloat16)


def _waves(positions: Tensor, width: int) -> Tensor:
    """[N] → [N, width]: all sines, then all cosines."""
    angles = positions[:, None] * inverse_frequencies(width, _ABSOLUTE_THETA)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _grid(architecture: AutoregressiveArchitecture) -> tuple[Tensor, ...]:
    axes = [torch.arange(n, dtype=torch.float64, device="cpu") for n in architecture.latent_shape]
    return tuple(axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))  # T H W, w fastest


def _in_sequence(video: Tensor, architecture: AutoregressiveArchitecture) -> Tensor:
    """[video_tokens, D] → [max_sequence, D] with zero rows before and behind the video."""
    rows = video.new_zeros(architecture.max_sequence, video.shape[1])
    rows[architecture.video_start : architecture.sequence_length] = video
    return rows
