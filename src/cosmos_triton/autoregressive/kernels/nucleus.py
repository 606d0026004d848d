# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""The sampler of `nucleus` as two kernels, for GPUs: nothing is sorted and nothing waits for the host.

The first scores every token, many programs a row; the second, one program a row, takes the best noisy
token and checks the mass before it, striking out and taking again until a token of the nucleus is
found. Integers are those of the plain sampler bit for bit, float32 sums agree to rounding.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.autoregressive.kernels.overlap import overlap_options, wait_for_predecessor

_SCORED = 2048  # tokens a program of the first kernel scores
_CHECKED = 8192  # tokens a step of the second kernel reads
_STAGES = 2
_GREEDY_BELOW = 1e-30  # the smallest difference of two logits outweighs any noise long before


@triton.jit
def _gumbel(seed, position, quad):
    """Noise of tokens 4 * quad .. 4 * quad + 3, in order: [N] → [4 N]. See `noise`."""
    zero = quad * 0
    a, b, c, d = tl.philox(seed, quad, zero + position, zero, zero)
    words = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    v = tl.minimum((words.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 1 - 5.960464477539063e-08)
    series = v * (1 + v * (1 / 2 + v * (1 / 3 + v * (1 / 4 + v * (1 / 5 + v * (1 / 6 + v * (1 / 7)))))))
    return -tl.log(tl.where(v < 1 / 16, series, -tl.log(1 - v)))


@triton.jit
def _first_of_best(values, tokens):
    """(greatest value, smallest token that has it)."""
    best = tl.max(values, axis=0)
    return best, tl.min(tl.where(values == best, tokens, 2147483647), axis=0)


@triton.jit
def _score(
    logits_ptr,  # [R, V] float32
    seeds_ptr,  # [R] int64
    positions_ptr,  # [R] int64
    temperatures_ptr,  # [R] float32
    noisy_ptr,  # [R, V] float32
    maxima_ptr,  # [R, blocks] float32: greatest logit / temperature
    sums_ptr,  # [R, blocks] float32: sum of exp(logit / temperature - maximum)
    bests_ptr,  # [R, blocks] float32: greatest logit / temperature + noise
    owners_ptr,  # [R, blocks] int32: the token that has it
    V,
    BLOCK: tl.constexpr,
    GREEDY_BELOW: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    inside = token < V
    # All but the logits was written before the previous kernel was launched: noise is made before the wait.
    temperature = tl.load(temperatures_ptr + row)
    greedy = temperature < GREEDY_BELOW
    quad = block * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    noise = _gumbel(tl.load(seeds_ptr + row), tl.load(positions_ptr + row).to(tl.int32), quad)
    wait_for_predecessor(OVERLAP)
    logits = tl.load(logits_ptr + row * V + token, mask=inside, other=float("-inf"))
    scores = logits * (1.0 / tl.where(greedy, 1.0, temperature))
    noisy = scores + tl.where(greedy, 0.0, noise)
    tl.store(noisy_ptr + row * V + token, noisy, mask=inside)
    maximum = tl.max(scores, axis=0)
    reference = tl.where(maximum == float("-inf"), 0.0, maximum)
    offset = row * tl.num_programs(1) + block
    tl.store(maxima_ptr + offset, maximum)
    tl.store(sums_ptr + offset, tl.sum(tl.exp(scores - reference), axis=0))
    best, owner = _first_of_best(noisy, token)
    tl.store(bests_ptr + offset, best)
    tl.store(owners_ptr + offset, owner)


@triton.jit
def _take(
    logits_ptr,  # [R, V] float32
    temperatures_ptr,  # [R] float32
    top_ps_ptr,  # [R] float32
    noisy_ptr,  # [R, V] float32
    maxima_ptr,  # [R, blocks], as `_score` left them
    sums_ptr,
    bests_ptr,
    owners_ptr,
    out_ptr,  # [R] int64
    V,
    blocks,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    STAGES: tl.constexpr,
    GREEDY_BELOW: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    temperature = tl.load(temperatures_ptr + row)
    top_p = tl.load(top_ps_ptr + row)
    wait_for_predecessor(OVERLAP)
    greedy = temperature < GREEDY_BELOW
    factor = 1.0 / tl.where(greedy, 1.0, temperature)
    block = tl.arange(0, BLOCKS)
    maxima = tl.load(maxima_ptr + row * blocks + block, mask=block < blocks, other=float("-inf"))
    sums = tl.load(sums_ptr + row * blocks + block, mask=block < blocks, other=0.0)
    maximum = tl.max(maxima, axis=0)
    total = tl.sum(sums * tl.exp(maxima - maximum), axis=0)
    limit = tl.where(greedy, float("inf"), top_p * total)

    bests = tl.load(bests_ptr + row * blocks + block, mask=block < blocks, other=float("-inf"))
    owners = tl.load(owners_ptr + row * blocks + block, mask=block < blocks, other=2147483647)
    _, token = _first_of_best(bests, owners)

    searching = limit < float("inf")
    while searching:
        score = tl.load(logits_ptr + row * V + token) * factor
        mass = tl.zeros([BLOCK], dtype=tl.float32)
        for start in tl.range(0, V, BLOCK, num_stages=STAGES):
            other = start + lane
            logits = tl.load(logits_ptr + row * V + other, mask=other < V, other=float("-inf"))
            scores = logits * factor
            before = (scores > score) | ((scores == score) & (other < token))
            mass += tl.where(before, tl.exp(scores - maximum), 0.0)
        searching = tl.sum(mass, axis=0) > limit
        if searching:  # strike out the token and all after it in the order, and take the best that is left
            best = tl.full([BLOCK], float("-inf"), dtype=tl.float32)  # of each lane
            owner = tl.full([BLOCK], 2147483647, dtype=tl.int32)
            for start in tl.range(0, V, BLOCK, num_stages=STAGES):
                other = start + lane
                logits = tl.load(logits_ptr + row * V + other, mask=other < V, other=float("-inf"))
                noisy = tl.load(noisy_ptr + row * V + other, mask=other < V, other=float("-inf"))
                scores = logits * factor
                before = (scores > score) | ((scores == score) & (other < token))
                noisy = tl.where(before, noisy, float("-inf"))
                owner = tl.where(noisy > best, other, owner)
                best = tl.maximum(best, noisy)
            _, token = _first_of_best(best, owner)
    tl.store(out_ptr + row, token.to(tl.int64))


def sample(logits: Tensor, seeds: Tensor, positions: Tensor, temperatures: Tensor, top_ps: Tensor) -> Tensor:
    """See `nucleus.sample`; logits [R, V] float32."""
    rows, vocabulary = logits.shape
    blocks = triton.cdiv(vocabulary, _SCORED)
    noisy = torch.empty_like(logits)
    maxima = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
    sums, bests = torch.empty_like(maxima), torch.empty_like(maxima)
    owners = torch.empty_like(maxima, dtype=torch.int32)
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    _score[(rows, blocks)](
        logits,
        seeds,
        positions,
        temperatures,
        noisy,
        maxima,
        sums,
        bests,
        owners,
        vocabulary,
        BLOCK=_SCORED,
        GREEDY_BELOW=_GREEDY_BELOW,
        num_warps=4,
        **overlap_options(logits),
    )
    _take[(rows,)](
        logits,
        temperatures,
        top_ps,
        noisy,
        maxima,
        sums,
        bests,
        owners,
        out,
        vocabulary,
        blocks,
        BLOCK=_CHECKED,
        BLOCKS=triton.next_power_of_2(blocks),
        STAGES=_STAGES,
        GREEDY_BELOW=_GREEDY_BELOW,
        num_warps=32,
        **overlap_options(logits),
    )
    return out
