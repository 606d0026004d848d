import pytest
import torch
from torch import Tensor

from cosmos_triton.architectures import DIFFUSION_DECODERS
from cosmos_triton.checkpoints.published import diffusion_decoder_shapes
from cosmos_triton.diffusion.transformer import (
    DiffusionDenoiser,
    DiffusionTransformer,
    load_diffusion_transformer,
)
from cosmos_triton.errors import CheckpointError

TINY = DIFFUSION_DECODERS["tiny"]


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        name: 0.1 * torch.randn(shape, generator=generator)
        for name, shape in diffusion_decoder_shapes(TINY).items()
    }


@pytest.fixture(scope="module")
def network() -> DiffusionTransformer:
    return load_diffusion_transformer(TINY, weights())


@torch.no_grad()
def test_stage_holds_both_rows_of_guidance(network: DiffusionTransformer) -> None:
    latents, timestep = torch.randn(16, 8, 8, 12), torch.tensor([0.3])
    tokens = torch.randint(0, 64000, (8, 4, 6), dtype=torch.int32)
    text = torch.randn(512, TINY.text_dim)
    predictions = DiffusionDenoiser(network)(latents, timestep, tokens, text)
    assert predictions.shape == (2, 16, 8, 8, 12)
    assert predictions.dtype == torch.float32
    conditional = network(latents[None], timestep, tokens[None], text[None])
    torch.testing.assert_close(predictions[:1], conditional, atol=1e-5, rtol=1e-5)
    unconditional = network(
        latents[None], timestep, torch.zeros_like(tokens)[None], torch.zeros_like(text)[None]
    )
    torch.testing.assert_close(predictions[1:], unconditional, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frame_rate_and_padding_reach_the_network(network: DiffusionTransformer) -> None:
    latents = torch.randn(1, 16, 8, 4, 4)
    arguments = (
        torch.tensor([0.3]),
        torch.zeros(1, 8, 2, 2, dtype=torch.int32),
        torch.randn(1, 9, TINY.text_dim),
    )
    plain = network(latents, *arguments)
    padding = torch.zeros(1, 1, 32, 32)
    assert torch.equal(plain, network(latents, *arguments, padding_mask=padding))
    assert not torch.allclose(plain, network(latents, *arguments, padding_mask=padding + 1))
    assert not torch.allclose(plain, network(latents, *arguments, fps=30.0))


def test_every_published_name_of_the_real_network_has_a_place() -> None:
    architecture = DIFFUSION_DECODERS["7B"]
    tensors = {
        name: torch.empty(shape, device="meta")
        for name, shape in diffusion_decoder_shapes(architecture).items()
    }
    network = load_diffusion_transformer(architecture, tensors)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_237_257_216
    eps = {block.attn1.norm_q.eps for block in network.transformer.transformer_blocks}
    assert eps == {1e-6}


def test_a_missing_tensor_is_named() -> None:
    tensors = weights()
    del tensors["net.blocks.block1.blocks.2.block.layer1.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: transformer\.transformer_blocks\.1\.ff\.net\.0"):
        load_diffusion_transformer(TINY, tensors)
