"""The sampler against one that sorts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cosmos_triton.autoregressive.noise import gumbel
from cosmos_triton.autoregressive.nucleus import draw, possible, sample


def sorted_nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[V] bool, as the reference defines it: sort, add up, drop where the sum before exceeds top_p."""
    probabilities, ids = (logits.double() / temperature).softmax(0).sort(descending=True, stable=True)
    before = probabilities.cumsum(0) - probabilities
    return torch.zeros(len(logits), dtype=torch.bool).scatter(0, ids, before <= top_p)


def favour(token: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: 1e6 * (tokens == token).float()


def logits_of(kind: str, size: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(len(kind))
    if kind == "flat":
        return torch.zeros(size)
    spread = {"even": 0.3, "usual": 3.0, "peaked": 12.0}[kind]
    return torch.randn(size, generator=generator) * spread


@pytest.mark.parametrize("kind", ["flat", "even", "usual", "peaked"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.8, 0.95])
def test_exactly_the_nucleus_can_be_drawn(kind: str, temperature: float, top_p: float) -> None:
    logits = logits_of(kind)
    drawable = [draw(logits, temperature, top_p, favour(token)).item() == token for token in range(200)]
    nucleus = sorted_nucleus(logits, temperature, top_p)
    if kind == "flat":  # equal masses: whether the token on the edge is in is a matter of rounding
        assert abs(sum(drawable) - int(nucleus.sum())) <= 1
        assert drawable == sorted(drawable, reverse=True)  # ties go by id
    else:
        assert drawable == nucleus.tolist()


def test_top_p_of_one_keeps_everything() -> None:
    logits = logits_of("usual")
    assert all(draw(logits, 1.0, 1.0, favour(token)) == token for token in range(200))


def test_draws_are_the_best_noisy_tokens_of_the_nucleus() -> None:
    logits = torch.randn(8, 5000, generator=torch.Generator().manual_seed(0)) * 3
    seeds, positions = torch.arange(8) - 4, torch.arange(8) * 1000
    temperatures, top_ps = torch.linspace(0.3, 2, 8), torch.linspace(0.05, 1, 8)
    actual = sample(logits, seeds, positions, temperatures, top_ps)
    for row in range(8):
        temperature, top_p = temperatures[row].item(), top_ps[row].item()
        noise = gumbel(int(seeds[row]), int(positions[row]), torch.arange(5000))
        noisy = (logits[row] / temperature + noise).masked_fill(
            ~sorted_nucleus(logits[row], temperature, top_p), -torch.inf
        )
        assert actual[row] == noisy.argmax()


def test_draws_follow_the_renormalised_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -3.0])
    expected = logits.masked_fill(~sorted_nucleus(logits, 1.0, 0.85), -torch.inf).softmax(0)
    count = 6_000
    ones = torch.ones(count)
    drawn = sample(logits.expand(count, -1), torch.full((count,), 9), torch.arange(count), ones, 0.85 * ones)
    frequencies = torch.bincount(drawn, minlength=5) / count
    assert (frequencies - expected).abs().max() < 0.022  # over three standard deviations


def test_temperature_zero_takes_the_most_probable() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.9], [3.0, -1.0, 2.0]])
    zeros = torch.zeros(2)
    assert sample(logits, torch.zeros(2).long(), torch.zeros(2).long(), zeros, zeros + 0.5).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [1e-38, 1e-3, 1e3, 1e38])
def test_extreme_temperatures_do_not_overflow(temperature: float) -> None:
    logits = torch.tensor([-80.0, 90.0, 89.0])
    token = draw(logits, temperature, 0.9, lambda tokens: torch.zeros(len(tokens))).item()
    assert token == 1


def test_logits_of_minus_infinity_are_never_drawn() -> None:
    logits = torch.tensor([0.0, -torch.inf, 1.0])
    assert draw(logits, 1.0, 1.0, favour(1)).item() != 1


@pytest.mark.parametrize("top_p", [0.1, 0.7, 0.99, 1.0])
def test_possible_tokens_include_the_nucleus(top_p: float) -> None:
    for kind in ("flat", "even", "usual", "peaked"):
        logits = logits_of(kind)
        found = possible((logits - logits.max()).exp(), top_p)
        assert set(sorted_nucleus(logits, 1.0, top_p).nonzero().flatten().tolist()) <= set(found.tolist())
