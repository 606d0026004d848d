"""The transformer's operations in PyTorch: the definition that every faster version is checked against.

On a CPU a token's result does not depend on how many tokens share the call, so a sequence decodes to
the same tokens alone, in a batch, and in windows. Two measures make it so: the row count of a matrix
product never falls under the size at which BLAS changes its summation order, and attention
accumulates one precision up, which leaves the order nothing to decide.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 8  # with fewer rows MKL leaves the kernel that sums each of them alike
_WIDER = {torch.float32: torch.float64, torch.bfloat16: torch.float32, torch.float64: torch.float64}


def add_norm(
    residual: Tensor, updates: tuple[Tensor, ...], weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `Operations.add_norm`."""
    for update in updates:
        residual = residual + update
    return residual, rms_norm(residual, weight, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimension, in float32, rounded, times weight."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """See `Operations.linear`."""
    rows = x.flatten(0, -2)  # [B, L, in] -> [B L, in]
    missing = -len(rows) % _ROWS if x.device.type == "cpu" else 0
    padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows
    return F.linear(padded, weight)[: len(rows)].reshape(*x.shape[:-1], len(weight))


def gated_linear(x: Tensor, weight: Tensor) -> Tensor:
    """See `Operations.gated_linear`."""
    gate, up = linear(x, weight).chunk(2, dim=-1)
    return F.silu(gate) * up


def project(x: Tensor, weight: Tensor) -> Tensor:
    """See `Operations.project`."""
    if x.device.type == "cpu":  # one product a row: as fast as all at once, and alike for any number of rows
        rows = [torch.mv(weight, row) for row in x.flatten(0, -2)]
        return torch.stack(rows).reshape(*x.shape[:-1], len(weight)).float()
    return F.linear(x, weight).float()


def norm_rotate_store(
    qkv: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
    eps: float,
    rotary: Tensor,
    positions: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """See `Operations.norm_rotate_store`."""
    kv_heads, width = keys.shape[1], keys.shape[3]
    heads = qkv.shape[-1] // width - 2 * kv_heads
    by_head = qkv.reshape(*qkv.shape[:-1], heads + 2 * kv_heads, width)  # [B, L, heads + 2 kv_heads, D]
    q, k, v = by_head.tensor_split((heads, heads + kv_heads), dim=2)
    angles = rotary[positions][:, :, None]  # [B, L, 1, D]
    rows = (slots[:, None], slice(None), positions)  # [B, L] rows × kv_heads
    keys[rows] = rotate(rms_norm(k, k_norm, eps), angles)
    values[rows] = v
    return rotate(rms_norm(q, q_norm, eps), angles)


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn channel pairs (c, c + D/2) by an angle: [..., D], [..., D] cosines then sines → [..., D]."""
    cos, sin = rotary.chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attend(query: Tensor, keys: Tensor, values: Tensor, last: Tensor, slots: Tensor) -> Tensor:
    """See `Operations.attend`."""
    wide = _WIDER[query.dtype]
    outputs = []
    for q, slot, rows in zip(query, slots.tolist(), last, strict=True):  # one sequence at a time
        seen = int(rows.max()) + 1
        k, v = keys[slot, :, :seen].to(wide), values[slot, :, :seen].to(wide)  # [kv_heads, S, D]
        grouped = q.to(wide).unflatten(1, (len(k), -1)).permute(1, 2, 0, 3)  # [kv_heads, group, L, D]
        scores = grouped @ k[:, None].mT * q.shape[-1] ** -0.5  # [kv_heads, group, L, S]
        hidden = torch.arange(seen, device=q.device) > rows[:, None]  # [L, S]
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        outputs.append((weights @ v[:, None]).permute(2, 0, 1, 3).flatten(1))  # [L, heads D]
    return torch.stack(outputs).to(query.dtype)
