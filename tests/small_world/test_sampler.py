"""The training forward of the transformers against the networks as they are served."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cosmos_triton.architectures import AUTOREGRESSIVE, TEXT_ENCODERS, TEXT_ROWS
from cosmos_triton.autoregressive.kv_cache import KVCache
from cosmos_triton.autoregressive.transformer import build as served_network
from small_world import sampler, scenes, text, weights
from small_world.tokens import World

SEQUENCES, LENGTH = 2, 70


@pytest.mark.parametrize("name", ["small", "small-video2world"])
@torch.no_grad()
def test_logits_are_those_of_the_served_network(name: str) -> None:
    torch.manual_seed(0)
    architecture = replace(AUTOREGRESSIVE[name], layers=2)
    network = sampler.build(architecture)
    tokens = torch.randint(0, architecture.vocabulary, (SEQUENCES, LENGTH))
    split = weights.split_matrices(architecture, dict(network.named_parameters()))
    served = served_network(architecture, split, dtype=torch.float32, device="cpu")
    cache = KVCache(architecture, SEQUENCES, text_rows=TEXT_ROWS, dtype=torch.float32, device="cpu")
    embeddings = None
    if architecture.is_video2world:
        tokens[:, 0] = architecture.bov_token  # type: ignore[assignment]
        encoder = text.build_encoder(TEXT_ENCODERS["small"])
        embeddings = text.encode(encoder, text.prompt_ids(scenes.sample(SEQUENCES, 0)))
        for slot, rows in enumerate(embeddings):
            served.store_text(F.pad(rows, (0, 0, 0, TEXT_ROWS - len(rows))), slot, cache)

    found = sampler.logits(network, tokens, embeddings)
    positions = torch.arange(LENGTH).expand(SEQUENCES, -1)
    expected = served.logits(served(tokens, positions, torch.arange(SEQUENCES), cache))

    assert found.std() > 0.1
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["small", "small-video2world"])
def test_a_transformer_learns_its_clips_by_heart(name: str) -> None:
    architecture = replace(
        AUTOREGRESSIVE[name],
        layers=1,
        dim=64,
        heads=2,
        kv_heads=1,
        vocabulary=64,
        embedding_rows=128,
        latent_shape=(5, 2, 4),
    )
    world = World(scenes.sample(2, 0), torch.randint(0, 64, (2, 5, 2, 4), dtype=torch.int16), None)
    encoder = replace(TEXT_ENCODERS["small"], layers=1) if architecture.is_video2world else None
    stage = sampler.SamplerStage(
        architecture, world, world, device=torch.device("cpu"), batch=2, text_architecture=encoder
    )
    optimizer = torch.optim.AdamW(stage.network.parameters(), lr=3e-3)

    losses = []
    for step in range(10):
        stage.next_batch(step)
        loss, _ = stage.loss()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert abs(losses[0] - 4.16) < 0.3  # ln 64: nothing is known yet
    assert losses[-1] < losses[0] - 0.2
    assert len(stage.evaluate(deepcopy(stage.network))["nats"]) == 5  # averages are copies


def test_new_clips_replace_the_oldest() -> None:
    device = torch.device("cpu")
    clips = [
        World(scenes.sample(3, i), torch.full((3, 5, 10, 16), i, dtype=torch.int16), None) for i in (0, 1)
    ]
    kept = sampler._Sentences(clips[0], prompts=True, device=device)
    kept.replace(World(clips[1].scenes[:2], clips[1].tokens[:2], None))
    kept.replace(World(clips[1].scenes[:2], clips[1].tokens[:2], None))

    assert kept.tokens[:, 0].tolist() == [1, 1, 1]
    ids = kept.ids(torch.tensor([1]))
    assert ids is not None
    assert torch.equal(ids[0], text.prompt_ids(clips[1].scenes)[1])


def test_video2world_begins_with_what_the_base_has_learned() -> None:
    base = sampler.build(replace(AUTOREGRESSIVE["small"], layers=1))
    network = sampler.build(replace(AUTOREGRESSIVE["small-video2world"], layers=1))
    sampler.start_from_base(network, {n: p.detach() for n, p in base.named_parameters()})

    assert torch.equal(network.embedding[: len(base.embedding)], base.embedding)
    assert torch.equal(network.layers[0].feed_forward.w13, base.layers[0].feed_forward.w13)
    assert not network.layers[0].cross_attention.wo.any()


def test_every_word_of_our_sentences_is_known() -> None:
    ids = text.prompt_ids(scenes.sample(2000, 0, events=1.0))

    assert 2 not in ids  # unknown
    assert int(ids.max()) < TEXT_ENCODERS["small"].vocabulary
    assert ((ids == 1).sum(dim=1) == 1).all()  # each ends once
