"""The Haar patch transform of both tokenizers, as one constant matrix.

A patch of p x p x p pixels goes through log2(p) levels of a 3D Haar transform, each scaled so that
the low-pass band is the mean of its cell. All levels together are linear in the p^3 pixels of a
patch, so the whole transform is one (p^3 x p^3) matrix M whose entries are exactly +-1/p^3, with
M^-1 = p^3 M^T. Both are exact in float16 and bfloat16, export as one MatMul, and hold no
transposed convolution (which TensorRT cannot compile in bfloat16).

The first frame is repeated p-1 times before patching, so that latent 0 holds frame 0 alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LOW_HIGH = ((1.0, 1.0), (1.0, -1.0))  # rows: mean and difference of two neighbours
AXES = 3  # time, height, width


def haar_matrix(patch: int) -> Tensor:
    """Rows are bands, columns are pixels of a patch in (time, height, width) order.

    Bands are ordered coarsest level last-applied first: within a level LLL, LLH, LHL, LHH, HLL, ...
    over (time, height, width).

    Args:
        patch: edge of the patch, a power of two.

    Returns:
        [p^3, p^3] float32 on the CPU, entries +-1/p^3.
    """
    if patch < 1 or patch & (patch - 1):
        raise ValueError(f"patch size {patch} is not a power of two")
    # Pixels as they enter: the image of basis vector (t, h, w) is a 1 at that place.
    signal = torch.eye(patch**AXES, device="cpu").reshape(1, patch, patch, patch, patch**AXES)
    step = torch.tensor(_LOW_HIGH, device="cpu") / 2
    while signal.shape[1] > 1:
        bands, edge = signal.shape[0], signal.shape[1] // 2
        cells = signal.reshape(bands, edge, 2, edge, 2, edge, 2, -1)
        # [bands, t,2, h,2, w,2, pixels] -> [(level bands) bands, t, h, w, pixels]
        split = torch.einsum("xi,yj,zk,btihjwkp->xyzbthwp", step, step, step, cells)
        signal = split.reshape(8 * bands, edge, edge, edge, -1)
    return signal.reshape(patch**AXES, patch**AXES)


class HaarPatcher(nn.Module):
    """Video to Haar bands: [B, C, 1 + p k, p H, p W] -> [B, p^3 C, 1 + k, H, W]; bands outermost."""

    matrix: Tensor

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer("matrix", haar_matrix(patch), persistent=False)

    def forward(self, video: Tensor) -> Tensor:
        p = self.patch
        video = torch.cat([video[:, :, :1].expand(-1, -1, p - 1, -1, -1), video], dim=2)
        b, c, t, h, w = video.shape
        cells = video.reshape(b, c, t // p, p, h // p, p, w // p, p)
        # [B, C, t, p, h, p, w, p] -> [B, t, h, w, C, p p p]
        pixels = cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(5)
        bands = F.linear(pixels, self.matrix.to(video.dtype))
        # [B, t, h, w, C, bands] -> [B, bands C, t, h, w]
        return bands.permute(0, 5, 4, 1, 2, 3).flatten(1, 2)


class HaarUnpatcher(nn.Module):
    """Inverse of HaarPatcher: [B, p^3 C, 1 + k, H, W] -> [B, C, 1 + p k, p H, p W]."""

    matrix: Tensor

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.register_buffer("matrix", patch**AXES * haar_matrix(patch).T, persistent=False)

    def forward(self, bands: Tensor) -> Tensor:
        p = self.patch
        b, _, t, h, w = bands.shape
        # [B, bands C, t, h, w] -> [B, t, h, w, C, bands]
        grouped = bands.reshape(b, p**AXES, -1, t, h, w).permute(0, 3, 4, 5, 2, 1)
        pixels = F.linear(grouped, self.matrix.to(bands.dtype))
        # [B, t, h, w, C, p p p] -> [B, C, t p, h p, w p]
        cells = pixels.reshape(b, t, h, w, -1, p, p, p).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return cells.reshape(b, -1, t * p, h * p, w * p)[:, :, p - 1 :]
