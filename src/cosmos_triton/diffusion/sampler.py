"""The diffusion decoder's sampling loop: video tokens become continuous latents.

The published recipe: an EDM Euler sampler over a Karras schedule (arXiv 2206.00364) of 15 steps,
classifier-free guidance on the raw network output, and a window of 8 latent frames that a shorter
world fills by reflection.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from torch import Tensor

from cosmos_triton.diffusion.windows import reflect_to_window
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry

Predict = Callable[[Tensor, Tensor], Tensor]
"""(latents [16, T, H, W] scaled by c_in, timestep [1] = c_noise) -> predictions [2, 16, T, H, W]:
the conditional and the unconditional row of the network's raw output."""

PredictFromTokens = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The same with the window's tokens [T, h, w] as third argument."""

LATENT_CHANNELS = 16

# What the published pipeline draws from its generator before the noise: one uniform number, and
# one Bernoulli number for each of its fourteen conditioning drop-outs.
_DRAWS_BEFORE_NOISE = 14


@dataclass(frozen=True)
class DiffusionSettings:
    """How latents are sampled; the defaults are the published ones."""

    guidance: float = 1.8  # out = cond + guidance * (cond - uncond)
    steps: int = 15
    sigma_max: float = 80.0
    sigma_min: float = 0.02
    sigma_data: float = 0.5
    window: int = 8  # latent frames the network always sees

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"diffusion steps must be at least 1, not {self.steps}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigurationError(
                f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} must be positive and ascending"
            )
        if self.sigma_data <= 0:
            raise ConfigurationError(f"sigma_data must be positive, not {self.sigma_data}")
        if self.window < 1:
            raise ConfigurationError(f"the window must hold at least 1 latent frame, not {self.window}")


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
        noise: [16, T, H, W] float32 unit noise, T = settings.window.
        settings: schedule and guidance.
        on_step: called with 1, 2, ... as steps finish; what it raises ends the loop.

    Returns:
        [16, T, H, W] float32, normalised: the sample divided by sigma_data.
    """
    if noise.shape[1] != settings.window:
        raise ValueError(f"noise has {noise.shape[1]} latent frames, the window {settings.window}")
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
    predict: PredictFromTokens,
    tokens: Tensor,
    geometry: VideoGeometry,
    seed: int,
    settings: DiffusionSettings,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """The latents of one world that fits one window.

    Args:
        predict: one evaluation of the network, both rows of guidance.
        tokens: [T, h, w] int32, T <= settings.window.
        geometry: the world's size.
        seed: of the initial noise.
        settings: schedule and guidance.
        on_step: as in `denoise`.

    Returns:
        [16, T, H/8, W/8] float32, normalised.
    """
    window = reflect_to_window(tokens, settings.window)
    noise = initial_noise(seed, (LATENT_CHANNELS, settings.window, *geometry.latent_plane))
    latents = denoise(lambda sample, timestep: predict(sample, timestep, window), noise, settings, on_step)
    return latents[:, : tokens.shape[0]]


def _scheduler(settings: DiffusionSettings) -> EDMEulerScheduler:
    scheduler: EDMEulerScheduler = EDMEulerScheduler(
        sigma_min=settings.sigma_min, sigma_max=settings.sigma_max, sigma_data=settings.sigma_data
    )
    scheduler.set_timesteps(settings.steps)
    return scheduler
