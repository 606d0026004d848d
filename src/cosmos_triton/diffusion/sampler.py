"""The diffusion decoder's sampling loop: video tokens become continuous latents.

The published recipe: an EDM Euler sampler over a Karras schedule (arXiv 2206.00364) of 15 steps,
classifier-free guidance on the raw network output, and 8 latent frames, to which a shorter world is
padded by reflection.
"""

from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from torch import Tensor

from cosmos_triton.diffusion.padding import pad_by_reflection
from cosmos_triton.diffusion.settings import DiffusionSettings
from cosmos_triton.geometry import VideoGeometry

Predict = Callable[[Tensor, Tensor], Tensor]
"""(latents [16, T, H, W] scaled by c_in, timestep [1] = c_noise) -> predictions [2, 16, T, H, W]:
the conditional and the unconditional row of the network's raw output."""

Network = Callable[[Tensor], Predict]
"""The tokens that the network sees [T, h, w] -> its evaluation for them. Called once a video."""

LATENT_CHANNELS = 16

# What the published pipeline draws from its generator before the noise: one uniform number, and
# one Bernoulli number for each of its fourteen conditioning drop-outs.
_DRAWS_BEFORE_NOISE = 14


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """The unit noise a request starts from; the published pipeline's own for the same seed.

    Args:
        seed: the request's seed, in the range of a signed 64-bit integer.
        shape: of the result, [16, 8, H/8, W/8].

    Returns:
        float32 on the CPU, drawn from a private generator: no other request has a part in it.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.rand(1, generator=generator)
    for _ in range(_DRAWS_BEFORE_NOISE):
        torch.bernoulli(torch.full((1,), 0.5), generator=generator)
    return torch.randn(shape, generator=generator)


def timesteps(settings: DiffusionSettings) -> list[float]:
    """The network's second argument at every step: c_noise = ln(sigma) / 4, falling."""
    return [float(timestep) for timestep in _scheduler(settings).timesteps]


def denoise(
    predict: Predict,
    noise: Tensor,
    settings: DiffusionSettings,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample latents.

    Args:
        predict: one evaluation of the network, both rows of guidance.
        noise: [16, T, H, W] float32 unit noise; the loop runs on its device.
        settings: schedule and guidance.
        on_step: called with 1, 2, ... as steps finish; what it raises ends the loop.

    Returns:
        [16, T, H, W] float32, normalised: the sample divided by sigma_data.
    """
    scheduler = _scheduler(settings)
    sample = noise * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps, start=1):
        conditional, unconditional = predict(
            scheduler.scale_model_input(sample, timestep), timestep.reshape(1)
        )
        guided = conditional + settings.guidance * (conditional - unconditional)
        (sample,) = scheduler.step(guided, timestep, sample, return_dict=False)[:1]
        if on_step is not None:
            on_step(step)
    latents: Tensor = sample / settings.sigma_data
    return latents


def decode_tokens(
    network: Network,
    tokens: Tensor,
    seed: int,
    settings: DiffusionSettings,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """The latents of one world. The loop runs where the tokens lie.

    Args:
        network: what predicts, given the tokens that it sees.
        tokens: [T, h, w] int32, T <= settings.latent_frames.
        seed: of the initial noise.
        settings: schedule, guidance and frames.
        on_step: as in `denoise`.

    Returns:
        [16, T, H/8, W/8] float32, normalised, contiguous.
    """
    world, rows, columns = tokens.shape
    plane = VideoGeometry.from_token_shape((world, rows, columns)).latent_plane
    seen = settings.seen_frames(world)
    # Drawn for all frames, then cut: the noise of a frame does not depend on how many the network sees.
    noise = initial_noise(seed, (LATENT_CHANNELS, settings.latent_frames, *plane))[:, :seen]
    predict = network(pad_by_reflection(tokens, seen))
    return denoise(predict, noise.to(tokens.device), settings, on_step)[:, :world].contiguous()


def _scheduler(settings: DiffusionSettings) -> EDMEulerScheduler:
    scheduler: EDMEulerScheduler = EDMEulerScheduler(
        sigma_min=settings.sigma_min, sigma_max=settings.sigma_max, sigma_data=settings.sigma_data
    )
    scheduler.set_timesteps(settings.steps)
    return scheduler
