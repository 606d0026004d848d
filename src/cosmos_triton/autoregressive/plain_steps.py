"""The steps of a decode pass in PyTorch: the definition that the kernels are checked against."""

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.nucleus import sample
from cosmos_triton.autoregressive.sequences import Sequences, Work

__all__ = ["guesses", "look_up", "sample", "settle", "settled"]


def look_up(
    sequences: Sequences, slots: Tensor, window: int, architecture: AutoregressiveArchitecture
) -> Work:
    """See `Steps.look_up`."""
    count = len(slots) * window
    places = _places(sequences, slots, window)

    def each(values: Tensor) -> Tensor:  # [slots] → [B W]
        return values[slots].repeat_interleave(window, output_size=count)

    return Work(
        tokens=sequences.tokens[slots[:, None], places],
        places=places.clamp(max=architecture.max_sequence - 1),  # past the end anything may happen
        targets=(places + 1).flatten(),
        seeds=each(sequences.seeds),
        temperatures=each(sequences.temperatures),
        top_ps=each(sequences.top_ps),
    )


def settle(
    sequences: Sequences,
    slots: Tensor,
    fed: Tensor,
    drawn: Tensor,
    architecture: AutoregressiveArchitecture,
    guess: str,
) -> None:
    """See `Steps.settle`."""
    window = fed.shape[1]
    places = _places(sequences, slots, window)
    rows = slots[:, None]
    sequences.tokens[rows, places + 1] = drawn
    if window > 1:
        ahead = places + 1 + window
        sequences.tokens[rows, ahead] = guesses(sequences.tokens, rows, ahead, architecture, guess)
    last = architecture.video_start + architecture.video_tokens - 1
    sequences.positions[slots] = torch.clamp(sequences.positions[slots] + settled(fed, drawn), max=last)


def settled(fed: Tensor, drawn: Tensor) -> Tensor:
    """How many draws of each window are final: [B, W], [B, W] → [B], from 1 to W.

    Token i was fed one place before draw i. The first draw always counts; each further one if the
    guess it was drawn behind equals the draw of its own place.
    """
    right = fed[:, 1:] == drawn[:, :-1]  # [B, W - 1]
    return 1 + right.cumprod(dim=1).sum(dim=1)


def guesses(
    tokens: Tensor, rows: Tensor, places: Tensor, architecture: AutoregressiveArchitecture, guess: str
) -> Tensor:
    """First guesses, of one of `GUESSES`, for `places` [B, W] of slots `rows` [B, 1]: [B, W]."""
    _, height, width = architecture.latent_shape
    if guess == "frame":
        return tokens[rows, (places - height * width).clamp(min=0)]
    if guess == "row":
        return tokens[rows, (places - width).clamp(min=0)]
    if guess == "left":
        return tokens[rows, places[:, :1] - 1].expand_as(places)
    return (places * 2654435761 >> 7) % architecture.vocabulary  # Knuth's multiplicative hash


def _places(sequences: Sequences, slots: Tensor, window: int) -> Tensor:
    """Places of the tokens a pass feeds: [B, W]."""
    return sequences.positions[slots][:, None] + torch.arange(window, device=slots.device)
