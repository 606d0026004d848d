"""What is written is a checkpoint folder like any other."""

from pathlib import Path

import pytest
import torch

from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
)
from cosmos_triton.checkpoints import published
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.checkpoints.text_tokenizer import load_text_tokenizer
from small_world import decoder, sampler, scenes, text, weights
from small_world.autoencoder import TrainableTokenizer, initialise

DISCRETE = DISCRETE_TOKENIZERS["small-DV8x16x16"]
CONTINUOUS = CONTINUOUS_TOKENIZERS["small-CV8x8x8"]
BASE, VIDEO2WORLD = AUTOREGRESSIVE["small"], AUTOREGRESSIVE["small-video2world"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFolder:
    """All networks, untrained."""
    path: Path = tmp_path_factory.mktemp("small")
    for architecture in (DISCRETE, CONTINUOUS):
        network = TrainableTokenizer(architecture)
        initialise(network)
        statistics = {"mean": torch.zeros(16, 5), "std": torch.arange(1.0, 6).expand(16, 5)}
        weights.write_tokenizer(architecture, _half(network) | statistics, path)
    for model in (BASE, VIDEO2WORLD):
        weights.write_autoregressive(model, _half(sampler.build(model)), path)
    small = DIFFUSION_DECODERS["small"]
    weights.write_diffusion_decoder(small, _half(decoder.build(small)), decoder.stored_context(small), path)
    encoder = TEXT_ENCODERS["small"]
    place = weights.write_text_encoder(encoder, _half(text.build_encoder(encoder)), path)
    text.write_tokenizer(place, encoder.max_tokens)
    return CheckpointFolder(path)


def test_every_network_is_found_whole(folder: CheckpointFolder) -> None:
    assert [c.architecture.name for c in folder.components] == [
        "small",
        "small-video2world",
        "small-DV8x16x16",
        "small-CV8x8x8",
        "small",
        "small",
    ]
    assert not any(c.problem for c in folder.components)
    assert folder.default_text().any(dim=1).sum() == decoder.CONTEXT_ROWS
    assert folder.mean_std()[1][0].tolist() == [1, 2, 3, 4, *[5] * 12]


def test_a_tokenizer_is_read_back(folder: CheckpointFolder) -> None:
    network = weights.read_tokenizer(folder.discrete_tokenizer())

    assert torch.equal(network.scale, torch.ones_like(network.scale))
    with torch.no_grad():
        assert network.encode(torch.zeros(1, 1, 32, 32, 3)).shape == (1, 1, 2, 2, 4)


def test_the_served_text_tokenizer_gives_the_ids_of_training(folder: CheckpointFolder) -> None:
    chosen = scenes.sample(20, 0, events=1.0)
    served = load_text_tokenizer(folder.text_tokenizer(), TEXT_ENCODERS["small"].max_tokens)

    for sentence, ids in zip(scenes.prompts(chosen), text.prompt_ids(chosen).tolist(), strict=True):
        assert served(sentence) == [i for i in ids if i]


def test_all_networks_together_are_small() -> None:
    shapes = [
        published.tokenizer_shapes(DISCRETE),
        published.tokenizer_shapes(CONTINUOUS),
        published.autoregressive_shapes(BASE),
        published.autoregressive_shapes(VIDEO2WORLD),
        published.diffusion_decoder_shapes(DIFFUSION_DECODERS["small"]),
        published.text_encoder_shapes(TEXT_ENCODERS["small"]),
    ]

    assert sum(2 * published.parameters(s.values()) for s in shapes) < 47.5e6


def _half(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().to(torch.bfloat16) for n, p in network.named_parameters()}
