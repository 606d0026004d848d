"""Finite scalar quantization (arXiv 2309.15505) with the published models' levels."""

from itertools import accumulate
from operator import mul

import torch
from torch import Tensor, nn

_EDGE = 1e-3  # how far the bounded range reaches past the outermost level


class FiniteScalarQuantizer(nn.Module):
    """Maps a short vector to one of prod(levels) ids and back.

    Everything is computed in float32 whatever the module's dtype: half precision flips 1 to 2 % of
    the ids. Constants are integer buffers, so that `module.to(dtype)` leaves them alone.

    Args:
        levels: number of levels per channel, e.g. (8, 8, 8, 5, 5, 5) for 64000 ids.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        basis = list(accumulate(levels[:-1], mul, initial=1))
        shape = (1, len(levels), 1, 1, 1)
        self.register_buffer("levels", _constant(levels).reshape(shape), persistent=False)
        self.register_buffer("basis", _constant(basis).reshape(shape), persistent=False)

    def quantize(self, latent: Tensor) -> Tensor:
        """[B, C, t, h, w] of any float type -> codes [B, C, t, h, w] float32 in [-1, 1]."""
        return self._rounded(latent) / (self.levels // 2)

    def encode(self, latent: Tensor) -> Tensor:
        """[B, C, t, h, w] of any float type -> ids [B, t, h, w] int32."""
        digits = self._rounded(latent) + self.levels // 2
        return (digits * self.basis).sum(dim=1).to(torch.int32)  # below 2^24: exact in float32

    def decode(self, ids: Tensor) -> Tensor:
        """ids [B, t, h, w] int32 -> codes [B, C, t, h, w] float32 in [-1, 1]."""
        digits = (ids.unsqueeze(1) // self.basis) % self.levels
        half = self.levels // 2
        return (digits - half).float() / half.float()

    def _rounded(self, latent: Tensor) -> Tensor:
        levels = self.levels.float()
        half_range = (levels - 1) * (1 + _EDGE) / 2
        offset = 0.5 * (1 - self.levels % 2).float()  # an even number of levels has none in the middle
        shift = torch.atanh(offset / half_range)
        return torch.round(torch.tanh(latent.float() + shift) * half_range - offset)


def _constant(values: tuple[int, ...] | list[int]) -> Tensor:
    # The device is named, so that a module built on the meta device still has its constants.
    return torch.tensor(values, dtype=torch.int32, device="cpu")
