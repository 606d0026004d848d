"""Pixels, latents and tokens as integers. Imports nothing, so that every layer may use it.

A world is `frames` video frames of `height` x `width` pixels. Both tokenizers are causal in
time: latent 0 holds frame 0 alone, every further latent holds 8 frames. The discrete tokenizer
(DV8x16x16) turns 16x16 pixels into one token, the continuous one (CV8x8x8) 8x8 pixels into one
latent column.
"""

from dataclasses import dataclass

TEMPORAL_COMPRESSION = 8
TOKEN_PIXELS = 16
LATENT_PIXELS = 8

CONTEXT_FRAMES = 9  # frames that the video encoder always sees
CONTEXT_LATENTS = 2
ALLOWED_INPUT_FRAMES = (1, 9)


def latent_frames(frames: int) -> int:
    """Latent frames that hold `frames` video frames: 1 → 1, 9 → 2, 33 → 5."""
    if frames < 1 or (frames - 1) % TEMPORAL_COMPRESSION:
        raise ValueError(f"{frames} frames do not fill whole latents: frames must be 8 k + 1")
    return (frames - 1) // TEMPORAL_COMPRESSION + 1


def video_frames(latents: int) -> int:
    """Video frames held by `latents` latent frames: 1 → 1, 2 → 9, 5 → 33."""
    return (latents - 1) * TEMPORAL_COMPRESSION + 1


@dataclass(frozen=True)
class VideoGeometry:
    """The one size of video a set of models makes."""

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        latent_frames(self.frames)
        if self.height % TOKEN_PIXELS or self.width % TOKEN_PIXELS:
            raise ValueError(
                f"{self.height}x{self.width} pixels is not a multiple of {TOKEN_PIXELS} both ways"
            )

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of the token grid: (5, 40, 64) for 33x640x1024."""
        return latent_frames(self.frames), self.height // TOKEN_PIXELS, self.width // TOKEN_PIXELS

    @property
    def tokens_per_latent(self) -> int:
        """Tokens in one latent frame: 2560 for 640x1024."""
        _, rows, columns = self.token_shape
        return rows * columns

    @property
    def tokens(self) -> int:
        """Tokens in a whole world: 12800 for 33x640x1024."""
        return latent_frames(self.frames) * self.tokens_per_latent

    @property
    def latent_plane(self) -> tuple[int, int]:
        """Rows and columns of the continuous latent: (80, 128) for 640x1024."""
        return self.height // LATENT_PIXELS, self.width // LATENT_PIXELS

    @classmethod
    def from_token_shape(cls, shape: tuple[int, int, int]) -> "VideoGeometry":
        """The geometry whose token grid is `shape` = (latent frames, rows, columns)."""
        latents, rows, columns = shape
        return cls(video_frames(latents), rows * TOKEN_PIXELS, columns * TOKEN_PIXELS)
