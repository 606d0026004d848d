import math

import torch

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.autoregressive.positions import (
    absolute_positions,
    axis_frequencies,
    axis_widths,
    rotary_angles,
)
from support.tiny_autoregressive import architecture


def test_channels_divide_over_the_axes_as_published() -> None:
    assert axis_widths(128) == (44, 42, 42)
    assert axis_widths(4096) == (1368, 1364, 1364)
    assert axis_widths(5120) == (1708, 1706, 1706)


def test_angles_are_position_times_frequency_w_fastest() -> None:
    arch = architecture(video2world=True)
    angles = rotary_angles(arch)
    temporal, spatial = axis_frequencies(arch)
    t, h, w = 2, 3, 5
    position = arch.video_start + (t * 4 + h) * 6 + w
    assert torch.equal(angles[position], torch.cat([t * temporal, h * spatial, w * spatial]))


def test_prefix_and_padding_stay_where_they_are() -> None:
    arch = architecture(video2world=True)
    for table in (rotary_angles(arch), absolute_positions(arch)):
        assert len(table) == 128
        assert not table[0].any()
        assert not table[1 + 120 :].any()


def test_yarn_halves_slow_frequencies_and_keeps_fast_ones() -> None:
    plain_temporal, plain_spatial = axis_frequencies(AUTOREGRESSIVE["4B"])
    temporal, spatial = axis_frequencies(AUTOREGRESSIVE["12B"])
    assert torch.allclose(temporal / plain_temporal, torch.tensor(0.5, dtype=torch.float64))
    factors = (spatial / plain_spatial).tolist()
    expected = [1, 0.90133, 0.63740] + [0.5] * 18
    assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(factors, expected, strict=True))
