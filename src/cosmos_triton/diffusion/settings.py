"""How the diffusion decoder makes latents: the sampler's numbers, and what may be computed with less.

Two presets. `exact` is the published computation: 15 steps over eight latent frames in bfloat16. `reduced`
does less: the large matrix products in float8, and the world's own five latent frames instead of eight.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cosmos_triton.errors import ConfigurationError

Precision = Literal["bf16", "fp8"]
Frames = Literal["padded", "own"]


@dataclass(frozen=True)
class DiffusionSettings:
    """How latents are sampled; the defaults are the published ones.

    Args:
        guidance: out = cond + guidance * (cond - uncond).
        steps: evaluations of the network.
        sigma_max: noise level of the first step.
        sigma_min: noise level of the last.
        sigma_data: standard deviation of the latents that the network was trained on.
        latent_frames: latent frames that the network was trained to see.
        frames: what a shorter world shows the network: `padded`, that many frames, the missing ones by
            reflection; or `own`, the world's frames alone.
        precision: of the large matrix products: `bf16`, or `fp8` (float8 e4m3, a scale a row) in all blocks
            but the first and the last.
    """

    guidance: float = 1.8
    steps: int = 15
    sigma_max: float = 80.0
    sigma_min: float = 0.02
    sigma_data: float = 0.5
    latent_frames: int = 8
    frames: Frames = "padded"
    precision: Precision = "bf16"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"diffusion steps must be at least 1, not {self.steps}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigurationError(
                f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} must be positive and ascending"
            )
        if self.sigma_data <= 0:
            raise ConfigurationError(f"sigma_data must be positive, not {self.sigma_data}")
        if self.latent_frames < 1:
            raise ConfigurationError(
                f"the network must see at least 1 latent frame, not {self.latent_frames}"
            )
        for field, choices in (("frames", get_args(Frames)), ("precision", get_args(Precision))):
            if getattr(self, field) not in choices:
                raise ConfigurationError(
                    f"{field}={getattr(self, field)!r} is neither {' nor '.join(choices)}"
                )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "DiffusionSettings":
        """The preset of that name, with some fields changed.

        Raises:
            ConfigurationError: there is no such preset, or a value is out of range.
        """
        if name not in PRESETS:
            raise ConfigurationError(f"preset={name!r} is neither {' nor '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)

    def seen_frames(self, world: int) -> int:
        """Latent frames that the network sees of a world of `world` latent frames."""
        return world if self.frames == "own" else self.latent_frames

    @property
    def chunks(self) -> int:
        """Of the rows behind attention: two keep 0.5 GB less of the 20,480 rows of padded frames (measured
        on an H100); a part of fewer rows would not fill the card."""
        return 2 if self.frames == "padded" else 1


PRESETS: Mapping[str, DiffusionSettings] = {
    "exact": DiffusionSettings(),
    "reduced": DiffusionSettings(frames="own", precision="fp8"),
}
