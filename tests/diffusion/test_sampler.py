from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cosmos_triton.diffusion.sampler import Predict, decode_tokens, denoise, initial_noise
from cosmos_triton.diffusion.settings import DiffusionSettings, Frames

SETTINGS = DiffusionSettings(steps=4)


def test_noise_is_the_references_for_the_same_seed(repository: Path) -> None:
    golden = load_file(repository / "tests" / "data" / "parity" / "dd_pipeline.safetensors")
    expected = golden["io.t5.chunk0.noise_unit"][0]
    assert torch.equal(initial_noise(55, tuple(expected.shape)), expected)


def test_noise_depends_on_the_seed_alone() -> None:
    shape = (16, 8, 4, 6)
    first = initial_noise(1, shape)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert torch.equal(initial_noise(1, shape), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(initial_noise(2, shape), first)
    assert initial_noise(-(2**63), shape).isfinite().all()


def test_an_exact_denoiser_returns_its_image() -> None:
    """A network that knows x0 makes every step land on it: F = (x0 - c_skip x) / c_out."""
    x0, data = torch.randn(16, 8, 4, 6), SETTINGS.sigma_data

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        sigma = (4 * timestep).exp()
        sample = latents * (sigma**2 + data**2).sqrt()
        skip = data**2 / (sigma**2 + data**2)
        out = sigma * data / (sigma**2 + data**2).sqrt()
        return ((x0 - skip * sample) / out).expand(2, -1, -1, -1, -1)

    latents = denoise(predict, initial_noise(0, (16, 8, 4, 6)), SETTINGS)
    torch.testing.assert_close(latents * data, x0, atol=1e-4, rtol=1e-4)


def test_guidance_extrapolates_from_the_unconditional_row() -> None:
    conditional, unconditional = torch.tensor(2.0), torch.tensor(1.0)

    def last_step(guidance: float) -> Tensor:
        settings = replace(SETTINGS, steps=1, guidance=guidance)
        rows = torch.stack([conditional, unconditional]).reshape(2, 1, 1, 1, 1).expand(2, 16, 8, 2, 2)
        return denoise(lambda latents, timestep: rows, torch.zeros(16, 8, 2, 2), settings)

    # With zero noise the result is proportional to the guided output: cond + g (cond - uncond).
    torch.testing.assert_close(last_step(1.8) / last_step(0.0), torch.full((16, 8, 2, 2), 3.8 / 2))


def test_steps_are_reported_and_can_end_the_loop() -> None:
    seen: list[int] = []

    def stop_at_two(step: int) -> None:
        seen.append(step)
        if step == 2:
            raise KeyboardInterrupt

    rows = torch.zeros(2, 16, 8, 2, 2)
    with pytest.raises(KeyboardInterrupt):
        denoise(lambda latents, timestep: rows, torch.zeros(16, 8, 2, 2), SETTINGS, stop_at_two)
    assert seen == [1, 2]


TOKENS = torch.arange(5, dtype=torch.int32).reshape(5, 1, 1).expand(5, 2, 3)


@pytest.mark.parametrize(("frames", "seen"), [("padded", [0, 1, 2, 3, 4, 3, 2, 1]), ("own", [0, 1, 2, 3, 4])])
def test_tokens_reach_the_network_once_a_video(frames: Frames, seen: list[int]) -> None:
    shown: list[list[int]] = []
    shapes: set[tuple[int, ...]] = set()

    def network(tokens: Tensor) -> Predict:
        shown.append(tokens[:, 0, 0].tolist())

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            shapes.add(tuple(latents.shape))
            return torch.zeros(2, *latents.shape)

        return predict

    latents = decode_tokens(network, TOKENS, 7, replace(SETTINGS, frames=frames))
    assert latents.shape == (16, 5, 4, 6)
    assert latents.is_contiguous()
    assert shown == [seen]
    assert shapes == {(16, len(seen), 4, 6)}


def test_the_noise_of_a_frame_does_not_depend_on_how_many_are_seen() -> None:
    def predicts_nothing(tokens: Tensor) -> Predict:  # so that the latents are the noise, scaled
        return lambda latents, timestep: torch.zeros(2, *latents.shape)

    padded, own = (
        decode_tokens(predicts_nothing, TOKENS, 7, replace(SETTINGS, frames=f)) for f in ("padded", "own")
    )
    torch.testing.assert_close(own, padded)
