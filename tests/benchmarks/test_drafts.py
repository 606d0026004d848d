"""The comparison of drafts: its training sees the network that it measures, and drafts change no token."""

import dataclasses

import pytest
import torch

from benchmarks import drafts
from cosmos_triton.autoregressive.kv_cache import KVCache
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> AutoregressiveTransformer:
    small = dataclasses.replace(
        drafts.ARCHITECTURE, dim=48, layers=2, heads=4, kv_heads=2, ffn_dim=64, latent_shape=(3, 3, 4)
    )
    monkeypatch.setattr(drafts, "ARCHITECTURE", small)
    torch.manual_seed(0)
    return drafts.build_network("cpu")


def test_training_logits_are_those_of_the_network_with_a_cache(network: AutoregressiveTransformer) -> None:
    tokens = drafts.videos(2, 0.1, "cpu")
    cache = KVCache(drafts.ARCHITECTURE, 2, text_rows=0, dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        expected = network.logits(network(tokens, positions, torch.arange(2), cache))
        assert torch.allclose(drafts.train_logits(network, tokens), expected, atol=1e-4)


def test_windows_of_drafts_save_passes_and_change_no_token(network: AutoregressiveTransformer) -> None:
    prefixes = drafts.videos(2, 0.1, "cpu")[:, :12]
    parameters = SamplingParameters(7, 1.0, 0.8)
    with torch.inference_mode():
        one, expected = drafts.passes(network, prefixes, parameters, 1, "left")
        used, tokens = drafts.passes(network, prefixes, parameters, 4, "above")
    assert one == 1
    assert used <= 1
    assert torch.equal(tokens, expected)
