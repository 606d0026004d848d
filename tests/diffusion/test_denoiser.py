"""The GPU arrangement of the diffusion network against the plain statement of it, in float32 on the CPU."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cosmos_triton.architectures import DIFFUSION_DECODERS
from cosmos_triton.checkpoints.published import diffusion_decoder_shapes
from cosmos_triton.diffusion.denoiser import Denoiser, Linear, linear, quantised
from cosmos_triton.diffusion.sampler import denoise, timesteps
from cosmos_triton.diffusion.settings import DiffusionSettings
from cosmos_triton.diffusion.transformer import DiffusionDenoiser, load_diffusion_transformer
from cosmos_triton.errors import CheckpointError
from cosmos_triton.residency.policy import Residency

CPU = torch.device("cpu")
ARCHITECTURE = replace(DIFFUSION_DECODERS["tiny"], layers=4, vocabulary=500)
STEPS = DiffusionSettings(steps=3)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        name: 1 + 0.1 * torch.randn(shape) if len(shape) == 1 else torch.randn(shape) / shape[-1] ** 0.5
        for name, shape in diffusion_decoder_shapes(ARCHITECTURE).items()
    }


@pytest.fixture(scope="module")
def plain(tensors: dict[str, Tensor]) -> DiffusionDenoiser:
    return DiffusionDenoiser(load_diffusion_transformer(ARCHITECTURE, tensors, dtype=torch.float32))


@pytest.fixture(scope="module")
def video() -> tuple[Tensor, Tensor, Tensor]:
    """Noise [16, 8, 8, 12], tokens [8, 4, 6], text [512, C] of which 12 rows are a prompt."""
    torch.manual_seed(1)
    text = torch.randn(512, ARCHITECTURE.text_dim)
    text[12:] = 0
    return torch.randn(16, 8, 8, 12), torch.randint(0, 500, (8, 4, 6), dtype=torch.int32), text


def arranged(tensors: dict[str, Tensor], **options: object) -> Denoiser:
    return Denoiser(ARCHITECTURE, tensors, device=CPU, dtype=torch.float32, **options)


def relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("residency", list(Residency))
@pytest.mark.parametrize("prepared", [False, True])
def test_equals_the_plain_network(tensors, plain, video, residency: Residency, prepared: bool) -> None:
    noise, tokens, text = video
    denoiser = arranged(tensors, residency=residency)
    if prepared:
        denoiser.prepare(timesteps(STEPS))
    with torch.no_grad():
        expected = denoise(lambda x, t: plain(x, t, tokens, text), noise, STEPS)
    with denoiser.present():
        conditioning = denoiser.condition(tokens, text)
        found = denoise(lambda x, t: denoiser(x, float(t), conditioning), noise, STEPS)
    assert relative(found, expected) < 1e-5


def test_leaving_out_the_unconditional_cross_attention_changes_nothing(tensors, plain, video) -> None:
    noise, tokens, text = video
    denoiser = arranged(tensors)
    with torch.no_grad():
        expected = plain(noise, torch.tensor([0.3]), tokens, text)
    with denoiser.present():
        found = denoiser(noise, 0.3, denoiser.condition(tokens, text))
    assert relative(found[1], expected[1]) < 1e-5
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[0], expected[1]) > 0.1  # the rows are not the same row


@pytest.mark.parametrize("chunks", [2, 5])
@pytest.mark.parametrize("fp8", [False, True])
def test_chunks_change_nothing(tensors, video, chunks: int, fp8: bool) -> None:
    noise, tokens, text = video
    whole, parts = arranged(tensors, fp8=fp8), arranged(tensors, fp8=fp8, chunks=chunks)
    with whole.present(), parts.present():
        expected = whole(noise, 0.3, whole.condition(tokens, text))
        found = parts(noise, 0.3, parts.condition(tokens, text))
    assert relative(found, expected) < 1e-6  # and not equality: a product may sum in another order


def test_a_step_writes_to_nothing_it_was_given(tensors, video) -> None:
    noise, tokens, text = video
    denoiser = arranged(tensors, chunks=2)
    before = noise.clone()
    with denoiser.present():
        conditioning = denoiser.condition(tokens, text)
        first = denoiser(noise, 0.3, conditioning)
        assert torch.equal(denoiser(noise, 0.3, conditioning), first)
    assert torch.equal(noise, before)


def test_float8_layers_come_close(tensors, video) -> None:
    noise, tokens, text = video
    unrounded, rounded = arranged(tensors), arranged(tensors, fp8=True, residency=Residency.OFFLOAD)
    with unrounded.present(), rounded.present():
        expected = unrounded(noise, 0.3, unrounded.condition(tokens, text))
        found = rounded(noise, 0.3, rounded.condition(tokens, text))
    assert 1e-4 < relative(found, expected) < 0.1


def test_float8_rows_use_their_range() -> None:
    rows = torch.randn(5, 64) * torch.tensor([1e-6, 1e-2, 1.0, 1e3, 0.0])[:, None]
    weight, scale = quantised(rows)
    assert weight.float().abs().amax(dim=1).tolist() == [448, 448, 448, 448, 0]
    restored = weight.float() * scale[:, None]
    assert (restored - rows).abs().max() <= rows.abs().max() / 16
    product = linear(torch.randn(3, 64), Linear(weight, scale))
    assert product.isfinite().all()


def test_tensors_that_do_not_fit_are_listed(tensors) -> None:
    damaged = {name: value for name, value in tensors.items() if name != "net.final_layer.linear.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing: net\.final_layer\.linear\.weight"):
        arranged(damaged)
