from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cosmos_triton.architectures import CONTINUOUS_TOKENIZERS, DISCRETE_TOKENIZERS
from cosmos_triton.checkpoints.published import tokenizer_shapes
from cosmos_triton.errors import CheckpointError
from cosmos_triton.networks.continuous_tokenizer import (
    LatentDecoder,
    LatentStatistics,
    load_continuous_decoder,
    load_continuous_encoder,
)
from cosmos_triton.networks.discrete_tokenizer import (
    VideoDecoder,
    VideoEncoder,
    load_discrete_decoder,
    load_discrete_encoder,
)
from cosmos_triton.networks.video_autoencoder import renames, to_uint8

DISCRETE = replace(DISCRETE_TOKENIZERS["tiny-DV8x16x16"], channels=4)
CONTINUOUS = replace(CONTINUOUS_TOKENIZERS["tiny-CV8x8x8"], channels=4)


def weights(architecture) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: 0.2 * torch.randn(shape, generator=generator)
        for name, shape in tokenizer_shapes(architecture).items()
    }


def test_video_encoder_stage() -> None:
    stage = VideoEncoder(load_discrete_encoder(DISCRETE, weights(DISCRETE)))
    tokens = stage(torch.rand(3, 9, 32, 48) * 2 - 1)
    assert tokens.shape == (2, 2, 3)
    assert tokens.dtype == torch.int32


def test_video_decoder_stage() -> None:
    stage = VideoDecoder(load_discrete_decoder(DISCRETE, weights(DISCRETE)))
    frames = stage(torch.randint(0, 64000, (5, 2, 3), dtype=torch.int32))
    assert frames.shape == (33, 32, 48, 3)
    assert frames.dtype == torch.uint8


def test_latent_decoder_stage_restores_the_statistics_of_every_latent_frame() -> None:
    decoder = load_continuous_decoder(CONTINUOUS, weights(CONTINUOUS))
    mean, std = torch.randn(16, 16), torch.rand(16, 16) + 0.5
    latents = torch.randn(16, 5, 2, 3)
    frames = LatentDecoder(decoder, LatentStatistics(mean.flatten(), std.flatten(), 16))(latents)
    raw = latents * std[:, :5, None, None] + mean[:, :5, None, None]
    assert frames.shape == (33, 16, 24, 3)
    assert torch.equal(frames, to_uint8(decoder(raw.unsqueeze(0))))


def test_statistics_for_too_few_latent_frames_are_an_error() -> None:
    statistics = LatentStatistics(torch.zeros(32), torch.ones(32), 16)
    with pytest.raises(ValueError, match="5 latent frames, but mean_std holds 2"):
        statistics.restore(torch.zeros(1, 16, 5, 2, 2))


@torch.no_grad()
def test_both_tokenizers_are_causal() -> None:
    """Nine frames encode to the first latents of 33, and two latents decode to the first 9 frames."""
    video = torch.rand(1, 3, 33, 32, 32) * 2 - 1
    encoder = load_continuous_encoder(CONTINUOUS, weights(CONTINUOUS))
    torch.testing.assert_close(encoder(video[:, :, :9]), encoder(video)[:, :, :2], atol=1e-4, rtol=1e-4)
    decoder = load_discrete_decoder(DISCRETE, weights(DISCRETE))
    ids = torch.randint(0, 64000, (1, 5, 2, 2), dtype=torch.int32)
    torch.testing.assert_close(decoder(ids[:, :2]), decoder(ids)[:, :, :9], atol=1e-4, rtol=1e-4)


def test_every_published_name_of_the_real_tokenizers_has_a_place() -> None:
    for architecture in (DISCRETE_TOKENIZERS["DV8x16x16"], CONTINUOUS_TOKENIZERS["CV8x8x8"]):
        tensors = {
            name: torch.empty(shape, device="meta") for name, shape in tokenizer_shapes(architecture).items()
        }
        discrete = architecture.fsq_levels is not None
        encode = load_discrete_encoder if discrete else load_continuous_encoder
        decode = load_discrete_decoder if discrete else load_continuous_decoder
        parameters = [
            *encode(architecture, tensors).parameters(),
            *decode(architecture, tensors).parameters(),
        ]
        assert len(parameters) == len(tensors)
        assert sum(p.numel() for p in parameters) == (110_898_294 if discrete else 105_653_696)


@pytest.mark.parametrize(
    ("name", "message"),
    [("encoder.mid.extra.weight", "unexpected"), ("surplus.weight", "unexpected"), (None, "missing")],
)
def test_a_file_that_does_not_fit_is_refused(name: str | None, message: str) -> None:
    tensors = weights(DISCRETE)
    if name is None:
        del tensors["encoder.conv_in.0.conv3d.weight"]
    else:
        tensors[name] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=message):
        load_discrete_encoder(DISCRETE, tensors)


def test_decoder_levels_are_counted_from_the_other_end() -> None:
    assert "decoder.up_blocks.0." in dict(renames(DISCRETE))[r"^decoder\.up\.2\."]


def test_pixels_are_clamped_and_truncated() -> None:
    video = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0]).reshape(1, 3, 2, 1, 1)
    expected = torch.tensor([[0, 127, 255], [0, 254, 255]], dtype=torch.uint8)
    assert torch.equal(to_uint8(video).reshape(2, 3), expected)
