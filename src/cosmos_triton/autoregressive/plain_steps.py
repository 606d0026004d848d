"""The steps of a decode pass in PyTorch: the definition that the kernels are checked against."""

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.nucleus import sample
from cosmos_triton.autoregressive.sequences import Sequences, Work

__all__ = ["accept", "accepted", "drafts", "gather", "sample"]


def gather(
    sequences: Sequences, slots: Tensor, window: int, architecture: AutoregressiveArchitecture
) -> Work:
    """See `Steps.gather`."""
    count = len(slots) * window
    positions = _fed_positions(sequences, slots, window)

    def each(values: Tensor) -> Tensor:  # [slots] → [B W]
        return values[slots].repeat_interleave(window, output_size=count)

    return Work(
        tokens=sequences.tokens[slots[:, None], positions],
        positions=positions.clamp(max=architecture.max_sequence - 1),  # what is past the end is never read
        targets=(positions + 1).flatten(),
        seeds=each(sequences.seeds),
        temperatures=each(sequences.temperatures),
        top_ps=each(sequences.top_ps),
    )


def accept(
    sequences: Sequences,
    slots: Tensor,
    fed: Tensor,
    drawn: Tensor,
    architecture: AutoregressiveArchitecture,
    draft_source: str,
) -> None:
    """See `Steps.accept`."""
    window = fed.shape[1]
    positions = _fed_positions(sequences, slots, window)
    rows = slots[:, None]
    sequences.tokens[rows, positions + 1] = drawn
    if window > 1:
        ahead = positions + 1 + window
        sequences.tokens[rows, ahead] = drafts(sequences.tokens, rows, ahead, architecture, draft_source)
    reached = sequences.positions[slots] + accepted(fed, drawn)
    sequences.positions[slots] = reached.clamp(max=architecture.sequence_length - 1)


def accepted(fed: Tensor, drawn: Tensor) -> Tensor:
    """How many drawn tokens of each window are final: [B, W], [B, W] → [B], from 1 to W.

    Drawn token i belongs one position behind fed token i. The first always counts; each further one if the
    draft it was drawn behind equals the token drawn for that draft's own position.
    """
    right = fed[:, 1:] == drawn[:, :-1]  # [B, W - 1]
    return 1 + right.cumprod(dim=1).sum(dim=1)


def drafts(
    tokens: Tensor,
    slots: Tensor,
    positions: Tensor,
    architecture: AutoregressiveArchitecture,
    draft_source: str,
) -> Tensor:
    """First drafts for `positions` [B, W] of `slots` [B, 1]: [B, W]. See `settings.DRAFT_SOURCES`."""
    _, height, width = architecture.latent_shape
    if draft_source == "frame":
        return tokens[slots, (positions - height * width).clamp(min=0)]
    if draft_source == "above":
        return tokens[slots, (positions - width).clamp(min=0)]
    if draft_source == "left":
        return tokens[slots, positions[:, :1] - 1].expand_as(positions)
    return (positions * 2654435761 >> 7) % architecture.vocabulary  # Knuth's multiplicative hash


def _fed_positions(sequences: Sequences, slots: Tensor, window: int) -> Tensor:
    """Positions of the tokens a pass feeds: [B, W]."""
    return sequences.positions[slots][:, None] + torch.arange(window, device=slots.device)
