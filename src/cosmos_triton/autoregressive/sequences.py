"""The state of all sequences in flight, and the two steps that advance it: `prefill` and `decode`.

Everything is a tensor on the network's device with a row for each cache slot. The steps read and
write rows in place, have static shapes and never wait for the device, so a step can be captured in
a CUDA graph.

A decode pass is one forward over a window of W tokens of each sequence, and verifies draft tokens (Jacobi
iteration coupled by the noise, cf. Speculative Coupled Decoding, arXiv 2510.24211). It feeds the last known
token and W - 1 draft tokens for the positions behind it, and draws the next token at each position fed. The
noise of a position is fixed, so the token drawn behind the known one is the token that one-by-one decoding
draws; a token drawn behind a draft token is, too, if every draft up to there is right. The pass accepts what
it drew up to and including the first token that differs from its draft, and keeps the rest as the next
drafts. The tokens are those of one-by-one decoding by construction; with W = 1 it is one-by-one decoding.
Keys and values of wrong drafts are overwritten by the next pass before anything reads them.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.kv_cache import KVCache
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer


@dataclass(frozen=True)
class Sequences:
    """Tokens and sampling state by slot. A sequence is its prefix and the tokens generated behind it.

    The prefix is what is known at the start: the begin-of-video token where the model has one, and the
    context tokens. `tokens` holds known tokens up to `positions` and drafts behind them; it is wider than a
    sequence by two windows, so that a pass at the end needs no special case.
    """

    tokens: Tensor  # [slots, max_sequence + 2 window] int64
    positions: Tensor  # [slots] int64: of the last known token
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

    def start(self, slot: int, prefix: Tensor, parameters: SamplingParameters) -> None:
        """Begin a sequence with prefix [P] int64, P ≥ 1."""
        self.tokens[slot, : len(prefix)] = prefix
        self.positions[slot] = len(prefix) - 1
        self.seeds[slot] = parameters.seed
        self.temperatures[slot] = parameters.temperature
        self.top_ps[slot] = parameters.top_p


@dataclass(frozen=True)
class Work:
    """What one decode pass feeds and draws: B sequences, W positions of each."""

    tokens: Tensor  # [B, W] int64: the last known token and drafts of its successors
    positions: Tensor  # [B, W] int64 of these tokens, within the cache
    targets: Tensor  # [B W] int64: positions of the tokens to draw
    seeds: Tensor  # [B W] int64
    temperatures: Tensor  # [B W] float32
    top_ps: Tensor  # [B W] float32


class Steps(Protocol):
    """What a decode pass does around the network; `plain_steps` in PyTorch, `fused_steps` as kernels."""

    def gather(
        self, sequences: Sequences, slots: Tensor, window: int, architecture: AutoregressiveArchitecture
    ) -> Work:
        """Gather the pass's work for slots [B]."""

    def sample(
        self, logits: Tensor, seeds: Tensor, positions: Tensor, temperatures: Tensor, top_ps: Tensor
    ) -> Tensor:
        """Draw a token for each row of logits [R, V]: [R]; see `nucleus.sample`."""

    def accept(
        self,
        sequences: Sequences,
        slots: Tensor,
        fed: Tensor,
        drawn: Tensor,
        architecture: AutoregressiveArchitecture,
        draft_source: str,
    ) -> None:
        """Write the drawn tokens [B, W] behind those fed, drafts behind these, and the new positions.

        Args:
            fed: [B, W] int64, the pass's `Work.tokens`.
            drawn: [B, W] int64.
            draft_source: one of `settings.DRAFT_SOURCES`; where drafts come from at positions that no pass
                has reached.
        """


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
    steps: Steps,
    draft_source: str,
) -> None:
    """Advance each sequence in `slots` ([B] int64, all different) by 1 to `window` tokens.

    Cache rows below a sequence's position must be filled. A sequence that has its last token stays there.
    """
    work = steps.gather(sequences, slots, window, network.architecture)
    hidden = network(work.tokens, work.positions, slots, cache)  # [B, W, dim]
    logits = network.logits(hidden).flatten(0, 1)  # [B W, V]
    drawn = steps.sample(logits, work.seeds, work.targets, work.temperatures, work.top_ps)
    drawn = drawn.view_as(work.tokens)
    steps.accept(sequences, slots, work.tokens, drawn, network.architecture, draft_source)
