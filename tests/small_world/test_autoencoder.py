"""The training forward of the tokenizers against the networks as they are served."""

from dataclasses import replace

import pytest
import torch

from cosmos_triton.architectures import CONTINUOUS_TOKENIZERS, DISCRETE_TOKENIZERS
from small_world.autoencoder import TrainableTokenizer, initialise

DISCRETE = replace(DISCRETE_TOKENIZERS["small-DV8x16x16"], channels=8)
CONTINUOUS = replace(CONTINUOUS_TOKENIZERS["small-CV8x8x8"], channels=8)


@pytest.fixture
def video() -> torch.Tensor:
    """[B, T, H, W, 3]"""
    torch.manual_seed(0)
    return torch.rand(2, 17, 32, 64, 3) * 2 - 1


@torch.no_grad()
def test_discrete_tokenizer_trains_what_is_served(video: torch.Tensor) -> None:
    network = _fresh(DISCRETE, video)
    latents = network.encode(video)
    decoded = network.decode(network.quantize(latents))
    network.fold()

    served = network.encoder(video.permute(0, 4, 1, 2, 3))
    again = network.decoder(served)

    assert torch.equal(network.tokens(latents), served)
    assert len(served.unique()) > 10
    assert (again.movedim(1, -1) - decoded).abs().max() < 1e-5


@torch.no_grad()
def test_continuous_tokenizer_trains_what_is_served(video: torch.Tensor) -> None:
    network = _fresh(CONTINUOUS, video)
    latents = network.encode(video)
    decoded = network.decode(latents)
    network.fold()

    served = network.encoder(video.permute(0, 4, 1, 2, 3))

    assert (served.movedim(1, -1) - latents).abs().max() < 1e-5
    assert (network.decoder(served).movedim(1, -1) - decoded).abs().max() < 1e-5


@torch.no_grad()
def test_measuring_the_scale_again_changes_nothing(video: torch.Tensor) -> None:
    network = _fresh(DISCRETE, video)
    before = network.encode(video)
    network.measure_scale(video * 0.3)

    assert torch.allclose(network.encode(video), before, atol=1e-5)


def test_gradients_reach_every_parameter_through_the_quantizer(video: torch.Tensor) -> None:
    network = _fresh(DISCRETE, video)
    codes = network.quantize(network.encode(video))
    network.decode(codes).square().mean().backward()

    assert codes.detach().unique().numel() <= 8
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def _fresh(architecture: object, video: torch.Tensor) -> TrainableTokenizer:
    torch.manual_seed(1)
    network = TrainableTokenizer(architecture)  # type: ignore[arg-type]
    network.measure_scale(video)
    initialise(network)
    return network
