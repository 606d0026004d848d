import pytest
import torch
from torch import Tensor

from cosmos_triton.autoregressive.kv_cache import KVCache, slot_bytes
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer, build
from cosmos_triton.errors import CheckpointError
from support.tiny_autoregressive import architecture, network, weights

VARIANTS = [{"video2world": False}, {"video2world": True}, {"video2world": True, "yarn": True}]
TEXT_ROWS = 7


def cache_for(net: AutoregressiveTransformer, slots: int = 4) -> KVCache:
    cache = KVCache(net.architecture, slots, text_rows=TEXT_ROWS, dtype=torch.float32, device="cpu")
    cache.keys.normal_()  # what a former occupant left behind must not matter
    cache.values.normal_()
    return cache


def prepared(net: AutoregressiveTransformer, slots: int = 4) -> KVCache:
    cache = cache_for(net, slots)
    if net.architecture.is_video2world:
        for slot in range(slots):
            generator = torch.Generator().manual_seed(slot)
            net.store_text(torch.randn(TEXT_ROWS, 24, generator=generator), slot, cache)
    return cache


def tokens_for(net: AutoregressiveTransformer, batch: int, length: int) -> Tensor:
    return torch.randint(0, 96, (batch, length), generator=torch.Generator().manual_seed(1))


def logits(
    net: AutoregressiveTransformer, cache: KVCache, tokens: Tensor, start: int, slots: list[int]
) -> Tensor:
    positions = torch.arange(start, start + tokens.shape[1]).expand(tokens.shape)
    with torch.inference_mode():
        return net.logits(net(tokens, positions, torch.tensor(slots), cache))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pieces", [[30], [1] * 30, [7, 1, 1, 12, 9], [29, 1]])
def test_any_division_into_calls_gives_the_same_logits(variant: dict[str, bool], pieces: list[int]) -> None:
    net = network(architecture(**variant))
    tokens = tokens_for(net, 1, 30)
    whole = logits(net, prepared(net), tokens, 0, [2])
    cache, parts, start = prepared(net), [], 0
    for length in pieces:
        parts.append(logits(net, cache, tokens[:, start : start + length], start, [2]))
        start += length
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sequence_does_not_notice_its_neighbours(variant: dict[str, bool]) -> None:
    net = network(architecture(**variant))
    tokens = tokens_for(net, 3, 20)
    together = logits(net, prepared(net), tokens, 0, [3, 0, 2])
    for row, slot in enumerate([3, 0, 2]):
        alone = logits(net, prepared(net), tokens[row : row + 1], 0, [slot])
        assert torch.equal(together[row : row + 1], alone)


def test_sequences_of_a_batch_may_be_at_different_positions() -> None:
    net = network(architecture())
    tokens = tokens_for(net, 2, 20)
    cache = prepared(net)
    logits(net, cache, tokens[:1, :13], 0, [0])
    logits(net, cache, tokens[1:, :4], 0, [1])
    positions = torch.tensor([[13, 14], [4, 5]])
    fed = tokens.gather(1, positions)
    with torch.inference_mode():
        mixed = net.logits(net(fed, positions, torch.tensor([0, 1]), cache))
    whole = logits(net, prepared(net), tokens, 0, [0, 1])
    assert torch.equal(mixed, torch.stack([whole[0, 13:15], whole[1, 4:6]]))


def test_a_token_sees_itself_and_the_past_only() -> None:
    net = network(architecture())
    tokens = tokens_for(net, 1, 12)
    changed = tokens.clone()
    changed[0, 8] = (tokens[0, 8] + 1) % 96
    before, after = (logits(net, prepared(net), t, 0, [0])[0] for t in (tokens, changed))
    assert torch.equal(before[:8], after[:8])
    assert not torch.equal(before[8], after[8])


def test_zero_rows_of_the_text_embeddings_take_part_in_attention() -> None:
    arch = architecture(video2world=True)
    net = network(arch)
    text = torch.randn(TEXT_ROWS, 24, generator=torch.Generator().manual_seed(0))
    text[4:] = 0
    results = []
    for rows in (TEXT_ROWS, 4):
        cache = KVCache(arch, 1, text_rows=rows, dtype=torch.float32, device="cpu")
        net.store_text(text[:rows], 0, cache)
        results.append(logits(net, cache, tokens_for(net, 1, 5), 0, [0]))
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_build_lists_every_name_that_does_not_fit() -> None:
    arch = architecture()
    tensors = weights(arch)
    del tensors["layers.1.attention.wk.weight"]
    tensors["layers.0.cross_attention.wq.weight"] = torch.zeros(1)
    tensors["norm.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as raised:
        build(arch, tensors, dtype=torch.float32, device="cpu")
    for name in ("layers.1.attention.wk.weight", "layers.0.cross_attention.wq.weight", "norm.weight [3]"):
        assert name in str(raised.value)


def test_slot_bytes_are_those_of_the_cache() -> None:
    for variant in VARIANTS:
        arch = architecture(**variant)
        cache = KVCache(arch, 3, text_rows=TEXT_ROWS, dtype=torch.float32, device="cpu")
        held = [cache.keys, cache.values, cache.text_keys, cache.text_values]
        total = sum(tensor.nbytes for tensor in held if tensor is not None)
        assert total == 3 * slot_bytes(arch, text_rows=TEXT_ROWS, dtype=torch.float32)
