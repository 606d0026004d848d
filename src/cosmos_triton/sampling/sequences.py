"""The state of all sequences in flight, and the two steps that advance it: `prefill` and `decode`.

Everything is a tensor on the network's device with a row for each cache slot. The steps read and
write rows in place, have static shapes and never wait for the device, so a step can be captured in
a CUDA graph.

A decode pass guesses and verifies (Jacobi iteration coupled by the noise, cf. Speculative Coupled Decoding,
arXiv 2510.24211). It feeds the last known token and W - 1 guesses of its successors, and draws a token
behind each. The noise of a position is fixed, so the draw behind the known token is the token that
one-by-one decoding draws; the draw behind a guess is, too, if every guess up to there is right. The pass
keeps draws up to and including the first that differs from its guess, and the rest as the next
guesses. The tokens are those of one-by-one decoding by construction; with W = 1 it is one-by-one
decoding. Keys and values of wrong guesses are overwritten by the next pass before anything reads them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.networks.autoregressive import AutoregressiveTransformer
from cosmos_triton.networks.kv_cache import KVCache
from cosmos_triton.sampling.parameters import SamplingParameters

Draw = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(logits [R, V], seeds, positions, temperatures, top_ps [R]) → tokens [R]: see `nucleus.sample`."""

GUESSES = ("frame", "row", "left", "random")


@dataclass(frozen=True)
class Sequences:
    """Tokens and sampling state by slot. A sequence is prefix, context and generated tokens.

    `tokens` holds known tokens up to `positions`, behind that guesses; it is wider than a sequence by two
    windows, so that a pass at the end needs no special case.
    """

    tokens: Tensor  # [slots, max_sequence + 2 window] int64
    positions: Tensor  # [slots] int64: place of the last known token
    seeds: Tensor  # [slots] int64
    temperatures: Tensor  # [slots] float32
    top_ps: Tensor  # [slots] float32

    @classmethod
    def allocate(
        cls, architecture: AutoregressiveArchitecture, slots: int, window: int, device: torch.device
    ) -> "Sequences":
        """Empty state for `slots` sequences and windows up to `window`."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            tokens=zeros(slots, architecture.max_sequence + 2 * window, dtype=torch.int64),
            positions=zeros(slots, dtype=torch.int64),
            seeds=zeros(slots, dtype=torch.int64),
            temperatures=zeros(slots, dtype=torch.float32),
            top_ps=zeros(slots, dtype=torch.float32),
        )

    def start(self, slot: int, prompt: Tensor, parameters: SamplingParameters) -> None:
        """Begin a sequence: prompt [P] int64 is known, P ≥ 1."""
        self.tokens[slot, : len(prompt)] = prompt
        self.positions[slot] = len(prompt) - 1
        self.seeds[slot] = parameters.seed
        self.temperatures[slot] = parameters.temperature
        self.top_ps[slot] = parameters.top_p


def prefill(
    network: AutoregressiveTransformer,
    cache: KVCache,
    sequences: Sequences,
    slot: int,
    start: int,
    stop: int,
) -> None:
    """Fill a sequence's cache rows start..stop-1 with its tokens there; rows below must be filled."""
    device = sequences.tokens.device
    positions = torch.arange(start, stop, device=device)[None]  # [1, L]
    network(
        sequences.tokens[slot : slot + 1, start:stop],
        positions,
        torch.full((1,), slot, device=device),
        cache,
    )


def decode(
    network: AutoregressiveTransformer,
    cache: KVCache,
    sequences: Sequences,
    slots: Tensor,
    window: int,
    draw: Draw,
    guess: str,
) -> None:
    """Advance each sequence in `slots` ([B] int64, all different) by 1 to `window` tokens.

    Cache rows below a sequence's position must be filled. A sequence that has its last token stays there.
    """
    architecture = network.architecture
    last = architecture.prefix + architecture.video_tokens - 1
    rows = slots[:, None]
    known = sequences.positions[slots]  # [B]
    positions = known[:, None] + torch.arange(window, device=slots.device)  # [B, W]
    fed = sequences.tokens[rows, positions]
    places = positions.clamp(max=architecture.max_sequence - 1)  # past the end anything may happen
    logits = network.logits(network(fed, places, slots, cache))  # [B, W, V]
    drawn = draw(
        logits.flatten(0, 1),  # [B W, V]
        sequences.seeds[slots].repeat_interleave(window, output_size=fed.numel()),
        (positions + 1).flatten(),
        sequences.temperatures[slots].repeat_interleave(window, output_size=fed.numel()),
        sequences.top_ps[slots].repeat_interleave(window, output_size=fed.numel()),
    ).view_as(fed)
    sequences.tokens[rows, positions + 1] = drawn
    if window > 1:
        ahead = positions + 1 + window
        sequences.tokens[rows, ahead] = guesses(sequences.tokens, rows, ahead, architecture, guess)
    sequences.positions[slots] = torch.clamp(known + settled(fed, drawn), max=last)


def settled(fed: Tensor, drawn: Tensor) -> Tensor:
    """How many draws of each window are final: [B, W], [B, W] → [B], from 1 to W.

    Token i was fed one place before draw i. The first draw always counts; each further one if the
    guess it was drawn behind equals the draw of its own place.
    """
    right = fed[:, 1:] == drawn[:, :-1]  # [B, W - 1]
    return 1 + right.cumprod(dim=1).sum(dim=1)


def guesses(
    tokens: Tensor, rows: Tensor, positions: Tensor, architecture: AutoregressiveArchitecture, guess: str
) -> Tensor:
    """First guesses for places that no pass has reached yet: [B, W] positions → [B, W] token ids.

    Args:
        tokens: [slots, S] as in `Sequences`, read at earlier places.
        rows: [B, 1] slots.
        guess: `frame`, the token at the same place one latent frame earlier; `row`, the one above; `left`,
            the last one drawn; `random`, any.
    """
    _, height, width = architecture.latent_shape
    if guess == "frame":
        return tokens[rows, (positions - height * width).clamp(min=0)]
    if guess == "row":
        return tokens[rows, (positions - width).clamp(min=0)]
    if guess == "left":
        return tokens[rows, positions[:, :1] - 1].expand_as(positions)
    return (positions * 2654435761 >> 7) % architecture.vocabulary  # Knuth's multiplicative hash
