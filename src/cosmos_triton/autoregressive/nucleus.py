"""Logits → token: temperature, nucleus (top-p) and Gumbel noise, without sorting the vocabulary.

In the order of falling probability (ties by token id) a token belongs to the nucleus iff the mass
strictly before it is at most top_p: the token that crosses top_p stays. The nucleus is therefore an
upper set of that order, and a draw from it needs no sort: take the best noisy token of all; if it lies
outside, no token at or after it in the order can be inside, so strike those out and take again. The
first take succeeds with probability top_p at least.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cosmos_triton.autoregressive.noise import gumbel

_MARGIN = 0.99  # keeps rounding from striking out a token that the exact sums would keep


def sample(logits: Tensor, seeds: Tensor, positions: Tensor, temperatures: Tensor, top_ps: Tensor) -> Tensor:
    """One token for each row, in float32 arithmetic. Reads its arguments on the host.

    Args:
        logits: [R, V].
        seeds: [R] int64.
        positions: [R] int64 that the tokens are drawn for.
        temperatures: [R] float32, 0 for the most probable token.
        top_ps: [R] float32 in (0, 1].

    Returns:
        [R] int64 token ids.
    """
    columns = (seeds.tolist(), positions.tolist(), temperatures.tolist(), top_ps.tolist())
    return torch.stack(
        [
            draw(row, temperature, top_p, partial(gumbel, seed, position))
            for row, seed, position, temperature, top_p in zip(logits.float(), *columns, strict=True)
        ]
    )


def draw(logits: Tensor, temperature: float, top_p: float, noise: Callable[[Tensor], Tensor]) -> Tensor:
    """[V] float32 → [] token id: the best of the nucleus by logit / temperature + noise.

    Args:
        noise: [N] ascending token ids → [N] float32 Gumbel noise.
    """
    if temperature == 0:
        return logits.argmax()
    scores = (logits - logits.max()) / temperature  # ≤ 0, so that no temperature overflows
    masses = scores.exp()
    tokens = possible(masses, top_p)
    scores, masses, limit = scores[tokens], masses[tokens], top_p * masses.sum()
    noisy = scores + noise(tokens)
    while True:
        best = noisy.argmax()
        before = (masses > masses[best]) | ((masses == masses[best]) & (tokens < tokens[best]))
        if (masses * before).sum() <= limit:
            return tokens[best]
        noisy = noisy.masked_fill(~before, -torch.inf)


def possible(masses: Tensor, top_p: float) -> Tensor:
    """Ids, ascending, of a set of tokens that holds the nucleus: [V] unnormalised masses → [N] int64.

    Tokens lighter than c weigh less than V c together. Where that is under (1 - top_p) of the total, the
    mass before any of them exceeds top_p, so none is in the nucleus.
    """
    cutoff = _MARGIN * (1 - top_p) * masses.sum() / len(masses)
    return (masses >= cutoff).nonzero().squeeze(1)
