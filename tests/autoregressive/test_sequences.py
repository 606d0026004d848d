"""Parallel decoding must not change a token; nor must neighbours, slots or the division of a prefix."""

import pytest
import torch
from torch import Tensor

from cosmos_triton.autoregressive import plain_steps
from cosmos_triton.autoregressive.kv_cache import KVCache
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.plain_steps import accepted
from cosmos_triton.autoregressive.sequences import Sequences, decode, prefill
from cosmos_triton.autoregressive.settings import DRAFT_SOURCES
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from support.tiny_autoregressive import architecture, network

BASE = network(architecture())
VIDEO2WORLD = network(architecture(video2world=True, yarn=True))


def prefix(net: AutoregressiveTransformer, seed: int, latents: int = 2) -> Tensor:
    tokens = torch.randint(0, 96, (latents * 24,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.full((net.architecture.video_start,), 96), tokens])


def generate(
    net: AutoregressiveTransformer,
    parameters: list[SamplingParameters],
    window: int = 1,
    draft_source: str = "frame",
    chunk: int = 64,
) -> tuple[Tensor, int]:
    """Tokens of one video for each entry, all in one batch: [B, tokens], and the passes it took."""
    arch = net.architecture
    slots = len(parameters) + 1  # slot 0 stays empty
    cache = KVCache(arch, slots, text_rows=5, dtype=torch.float32, device="cpu")
    sequences = Sequences.allocate(arch, slots, window, torch.device("cpu"))
    last = arch.sequence_length - 1
    with torch.inference_mode():
        for slot, chosen in enumerate(parameters, start=1):
            tokens = prefix(net, seed=chosen.seed % 3)
            sequences.start(slot, tokens, chosen)
            if arch.is_video2world:
                generator = torch.Generator().manual_seed(chosen.seed % 5)
                net.store_text(torch.randn(5, 24, generator=generator), slot, cache)
            for start in range(0, len(tokens) - 1, chunk):
                stop = min(start + chunk, len(tokens) - 1)
                prefill(net, cache, sequences, slot, start, stop)
        passes = 0
        while (sequences.positions[1:] < last).any():
            decode(net, cache, sequences, torch.arange(1, slots), window, plain_steps, draft_source)
            passes += 1
    return sequences.tokens[1:, : last + 1], passes


def settings(count: int, temperature: float = 1.0, top_p: float = 0.8) -> list[SamplingParameters]:
    return [SamplingParameters(100 + seed, temperature, top_p) for seed in range(count)]


@pytest.mark.parametrize("net", [BASE, VIDEO2WORLD], ids=["base", "video2world"])
@pytest.mark.parametrize(
    ("temperature", "top_p", "window"), [(0.0, 1.0, 7), (0.5, 0.8, 16), (1.0, 0.8, 2), (1.5, 1.0, 7)]
)
def test_windows_give_the_tokens_of_one_by_one_decoding(
    net: AutoregressiveTransformer, temperature: float, top_p: float, window: int
) -> None:
    chosen = settings(3, temperature, top_p)
    expected, steps = generate(net, chosen)
    actual, passes = generate(net, chosen, window)
    assert torch.equal(actual, expected)
    assert steps == 72
    assert passes <= steps


@pytest.mark.parametrize("draft_source", DRAFT_SOURCES)
def test_drafts_do_not_change_tokens(draft_source: str) -> None:
    chosen = settings(2)
    assert torch.equal(generate(BASE, chosen, 5, draft_source)[0], generate(BASE, chosen)[0])


def test_right_drafts_save_passes() -> None:
    net = network(architecture())
    net.output.zero_()  # every token is as probable: greedy decoding takes token 0 for ever
    tokens, passes = generate(net, settings(1, temperature=0.0), window=8, draft_source="left")
    assert not tokens[0, 48:].any()
    assert passes == 72 // 8  # the drafts in a fresh buffer are token 0


@pytest.mark.parametrize("net", [BASE, VIDEO2WORLD], ids=["base", "video2world"])
def test_a_seed_gives_the_same_tokens_alone_and_in_a_batch_of_eight(net: AutoregressiveTransformer) -> None:
    chosen = settings(8)
    together, _ = generate(net, chosen)
    assert len({tuple(row.tolist()) for row in together}) == 8
    for row in (0, 3, 7):
        assert torch.equal(generate(net, chosen[row : row + 1])[0], together[row : row + 1])


@pytest.mark.parametrize("chunk", [1, 10, 47])
def test_the_division_of_the_prefix_does_not_matter(chunk: int) -> None:
    assert torch.equal(generate(BASE, settings(2), chunk=chunk)[0], generate(BASE, settings(2))[0])


def test_tokens_are_accepted_up_to_the_first_that_differs_from_its_draft() -> None:
    fed = torch.tensor([[5, 1, 2, 3], [5, 1, 2, 3], [5, 1, 2, 3], [5, 1, 2, 3]])
    drawn = torch.tensor([[1, 2, 3, 9], [1, 2, 8, 9], [7, 2, 3, 9], [1, 7, 3, 9]])
    assert accepted(fed, drawn).tolist() == [4, 3, 1, 2]


def test_a_finished_sequence_stays_as_it_is() -> None:
    arch = BASE.architecture
    cache = KVCache(arch, 1, text_rows=1, dtype=torch.float32, device="cpu")
    sequences = Sequences.allocate(arch, 1, 4, torch.device("cpu"))
    sequences.start(0, torch.arange(120) % 96, SamplingParameters(0, 1.0, 0.8))
    with torch.inference_mode():
        for _ in range(3):
            decode(BASE, cache, sequences, torch.tensor([0]), 4, plain_steps, "frame")
    assert sequences.positions.tolist() == [119]
    assert torch.equal(sequences.tokens[0, :120], torch.arange(120) % 96)
