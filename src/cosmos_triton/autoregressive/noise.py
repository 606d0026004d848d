"""Counter-based Gumbel noise: a function of (seed, position, token), of nothing else.

Drawing argmax(logits + noise) samples from softmax(logits). As the noise does not depend on who asks
for it, or when, a seed gives the same tokens alone, in a batch, on any device, and when a token is
drawn behind a draft before the tokens up to there are known. Processes that hold parts of the vocabulary
need not exchange noise either.

The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011): the seed is the key; the counter is (token // 4, position, 0, 0), and
token % 4 picks one of the four words it gives.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LOW = 0xFFFFFFFF
_HALF = np.uint64(32)
_ROUNDS = 10
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], dtype=np.uint64)
_MASK = np.uint64(_LOW)


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10: [4, N] counters of 32-bit words and a key of two such words → [4, N] words."""
    even, odd = counter[0::2].copy(), counter[1::2].copy()  # [2, N] each
    keys = np.array(key, dtype=np.uint64)[:, None]
    high = np.empty_like(even)
    for _ in range(_ROUNDS):
        even *= _MULTIPLIERS  # 32 x 32 → 64 bits
        np.right_shift(even, _HALF, out=high)
        even &= _MASK
        odd ^= high[::-1]
        odd ^= keys
        even, odd = odd, even[::-1]
        keys = (keys + _WEYL) & _MASK
    words: NDArray[np.uint64] = np.stack([even, odd], axis=1).reshape(4, -1)
    return words


def random_words(seed: int, position: int, tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One uniform 32-bit word for each token id: [N], N ≥ 1, ascending → [N].

    Args:
        seed: any int64; its two's complement is the key.
    """
    quads = tokens >> 2
    dense = len(tokens) > quads[-1]  # fewer counters in all than tokens asked for
    counters, index = (np.arange(quads[-1] + 1), quads) if dense else (quads, np.arange(len(quads)))
    counter = np.zeros((4, len(counters)), dtype=np.uint64)
    counter[0] = counters
    counter[1] = position
    words = philox(counter, (seed & _LOW, seed >> 32 & _LOW))
    return words.T.ravel().take((index << 2) + (tokens & 3))


def gumbel(seed: int, position: int, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise of token ids: [N] int64, ascending → [N] float32, on the same device.

    -log(E) with E = -log(1 - v) and v = (word + ½) / 2³². What decides a draw is noise of large value,
    that is small E, and E has relative precision near 0. v stays below 1 in float32, so noise is finite.
    """
    words = random_words(seed, position, tokens.cpu().numpy()).view(np.int64).astype(np.float32)
    v = torch.from_numpy((words + np.float32(0.5)) * np.float32(2.0**-32)).to(tokens.device)
    return -torch.log1p(-v.clamp(max=1 - 2.0**-24)).neg().log()
