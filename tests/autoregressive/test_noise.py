import math
from functools import partial

import numpy as np
import pytest
import torch

from cosmos_triton.autoregressive.noise import gumbel, philox, random_words
from cosmos_triton.autoregressive.nucleus import draw

# Known answers of the authors' Random123 library: counter, key, output.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_answers(counter: str, key: str, output: str) -> None:
    columns = np.array(words(counter), dtype=np.uint64)[:, None].repeat(3, axis=1)
    low, high = words(key)
    assert philox(columns, (low, high)).T.tolist() == [words(output)] * 3


def test_a_token_gets_the_same_word_whoever_else_is_asked_for() -> None:
    every = random_words(7, 123, np.arange(1000))
    for tokens in ([0], [999], [3, 4, 5, 700], list(range(1, 1000, 2)), list(range(990))):
        assert random_words(7, 123, np.array(tokens)).tolist() == every[tokens].tolist()


def test_words_are_the_counters_of_token_and_position_under_the_seed() -> None:
    seed, position, token = -2, 12_799, 63_998
    counter = np.array([[token // 4], [position], [0], [0]], dtype=np.uint64)
    expected = philox(counter, (0xFFFFFFFE, 0xFFFFFFFF))[token % 4, 0]
    assert random_words(seed, position, np.array([token]))[0] == expected


def test_seeds_and_positions_have_noise_of_their_own() -> None:
    seeds = (0, 1, -1, 2**32, 2**63 - 1, -(2**63))
    streams = {tuple(random_words(s, p, np.arange(8)).tolist()) for s in seeds for p in (0, 1, 4)}
    assert len(streams) == 3 * len(seeds)


def test_noise_is_gumbel_distributed() -> None:
    noise = torch.cat([gumbel(3, position, torch.arange(64_000)) for position in range(4)])
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.std().item() == pytest.approx(math.pi / 6**0.5, abs=0.01)
    for threshold in (-1.0, 0.0, 1.0, 3.0):
        expected = math.exp(-math.exp(-threshold))
        assert (noise <= threshold).float().mean().item() == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("word", [0, 1, 255, 2**20, 2**31, 2**32 - 2**8, 2**32 - 2, 2**32 - 1])
def test_tails_keep_their_precision(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cosmos_triton.autoregressive.noise.random_words", lambda *_: np.array([word], dtype=np.uint64)
    )
    uniform = (word + 0.5) / 2**32
    if word > 2**24:  # from here on float32 rounds the uniform number itself
        uniform = min(float(np.float32(uniform)), 1 - 2**-24)
    exact = -math.log(-math.log1p(-uniform))
    assert gumbel(0, 0, torch.tensor([0])).item() == pytest.approx(exact, rel=1e-6, abs=1e-6)


def test_ranks_that_hold_parts_of_the_vocabulary_exchange_no_noise() -> None:
    """What they exchange is each rank's best: the token drawn is that of one rank that holds all."""
    vocabulary, ranks = 1000, 4
    for position in range(20):
        logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(position)) * 3
        whole = draw(logits, 0.7, 1.0, partial(gumbel, 5, position))
        bests = []
        for ids in torch.arange(vocabulary).chunk(ranks):
            noisy = logits[ids] / 0.7 + gumbel(5, position, ids)
            bests.append((noisy.max().item(), ids[noisy.argmax()].item()))
        assert max(bests)[1] == whole
