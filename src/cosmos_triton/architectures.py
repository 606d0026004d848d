"""What distinguishes one published network from another, as frozen dataclasses, and the presets.

Dimensions are those of the checkpoints; nothing here depends on torch. `tiny` presets have the
same structure at a size that a laptop runs in seconds: 33 frames of 160x256. `small` ones are trained,
by `small_world`, on worlds of the same size.
"""

from dataclasses import dataclass
from enum import Enum

from cosmos_triton.geometry import VideoGeometry

SEQUENCE_MULTIPLE = 64  # position tables and caches are padded to a multiple of this
TEXT_ROWS = 512  # rows of every text context: prompts are padded to and truncated at this many tokens


class Kind(Enum):
    """What an autoregressive model continues: media alone, or media with a prompt."""

    BASE = "base"
    VIDEO2WORLD = "Video2World"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Yarn:
    """YaRN frequency interpolation, per axis of the latent grid (arXiv 2309.00071)."""

    original_shape: tuple[int, int, int]  # latent grid the model was first trained on
    beta_fast: float
    beta_slow: float
    scale: float


@dataclass(frozen=True)
class AutoregressiveArchitecture:
    """A transformer over video tokens; Video2World models also attend over text embeddings."""

    name: str
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    vocabulary: int  # rows of the output head
    embedding_rows: int  # rows of the input embedding; Video2World adds special tokens
    norm_eps: float
    rope_theta: float
    latent_shape: tuple[int, int, int]  # (T, H, W) of the token grid
    yarn: Yarn | None
    text_dim: int | None  # width of the text embeddings; None for base models
    recommended_temperature: float
    recommended_top_p: float

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.name}: {self.heads} heads cannot share {self.kv_heads} kv heads")
        if self.head_dim % 2:
            raise ValueError(f"{self.name}: head_dim {self.head_dim} is odd")

    @property
    def kind(self) -> Kind:
        """Whether the model takes a prompt."""
        return Kind.VIDEO2WORLD if self.is_video2world else Kind.BASE

    @property
    def is_video2world(self) -> bool:
        """Whether the model takes text embeddings (and a begin-of-video token)."""
        return self.text_dim is not None

    @property
    def bov_token(self) -> int | None:
        """Id of the begin-of-video token that opens a Video2World sequence."""
        return self.vocabulary if self.is_video2world else None

    @property
    def video_start(self) -> int:
        """Position of the first video token: 1, behind the begin-of-video token, for Video2World, else 0."""
        return 1 if self.is_video2world else 0

    @property
    def video_tokens(self) -> int:
        """Tokens in a whole world."""
        latents, rows, columns = self.latent_shape
        return latents * rows * columns

    @property
    def sequence_length(self) -> int:
        """Tokens of a finished sequence: the whole world, and what stands before it."""
        return self.video_start + self.video_tokens

    @property
    def max_sequence(self) -> int:
        """Rows of position tables and caches: all tokens of a sequence, padded to a multiple of 64."""
        return -(-self.sequence_length // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE

    @property
    def geometry(self) -> VideoGeometry:
        """The video this model makes."""
        return VideoGeometry.from_token_shape(self.latent_shape)


@dataclass(frozen=True)
class TokenizerArchitecture:
    """A causal video autoencoder with Haar patches: DV8x16x16 (discrete) or CV8x8x8 (continuous)."""

    name: str
    channels: int
    channel_multipliers: tuple[int, ...]
    residual_blocks: int
    attention_resolutions: tuple[int, ...]
    resolution: int
    patch_size: int
    z_channels: int  # width at the encoder's end and the decoder's start
    latent_channels: int  # width after quant_conv: 6 FSQ codes, or 16 continuous channels
    spatial_compression: int
    temporal_compression: int
    fsq_levels: tuple[int, ...] | None  # None for the continuous tokenizer

    @property
    def codebook_size(self) -> int:
        """Number of distinct tokens (64000); 0 for the continuous tokenizer."""
        if self.fsq_levels is None:
            return 0
        size = 1
        for level in self.fsq_levels:
            size *= level
        return size


@dataclass(frozen=True)
class DiffusionDecoderArchitecture:
    """The diffusion transformer that turns video tokens into continuous latents."""

    name: str
    dim: int
    layers: int
    heads: int
    text_dim: int
    adaln_lora_dim: int
    vocabulary: int
    token_dim: int  # width of the token embedding that is concatenated to the latent
    latent_channels: int
    latent_frames: int  # that it was trained to see (8 for 57 video frames)


@dataclass(frozen=True)
class TextEncoderArchitecture:
    """A T5 encoder (v1.0: ReLU feed-forward, relative position buckets in layer 0)."""

    name: str
    vocabulary: int
    dim: int
    layers: int
    heads: int
    head_dim: int
    ffn_dim: int
    relative_buckets: int
    max_tokens: int  # prompts are padded to and truncated at this many tokens


_PUBLISHED_LATENT_SHAPE = (5, 40, 64)
_PUBLISHED_YARN = Yarn(original_shape=(3, 40, 64), beta_fast=4.0, beta_slow=1.0, scale=2.0)
_TINY_LATENT_SHAPE = (5, 10, 16)

AUTOREGRESSIVE: dict[str, AutoregressiveArchitecture] = {
    "4B": AutoregressiveArchitecture(
        name="4B",
        dim=4096,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn_dim=14336,
        vocabulary=64000,
        embedding_rows=64000,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_PUBLISHED_LATENT_SHAPE,
        yarn=None,
        text_dim=None,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    ),
    "5B": AutoregressiveArchitecture(
        name="5B",
        dim=4096,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn_dim=14336,
        vocabulary=64000,
        embedding_rows=64064,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_PUBLISHED_LATENT_SHAPE,
        yarn=None,
        text_dim=1024,
        recommended_temperature=1.0,
        recommended_top_p=0.7,
    ),
    "12B": AutoregressiveArchitecture(
        name="12B",
        dim=5120,
        layers=40,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn_dim=14336,
        vocabulary=64000,
        embedding_rows=64000,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_PUBLISHED_LATENT_SHAPE,
        yarn=_PUBLISHED_YARN,
        text_dim=None,
        recommended_temperature=1.0,
        recommended_top_p=0.9,
    ),
    "13B": AutoregressiveArchitecture(
        name="13B",
        dim=5120,
        layers=40,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn_dim=14336,
        vocabulary=64000,
        embedding_rows=64064,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_PUBLISHED_LATENT_SHAPE,
        yarn=_PUBLISHED_YARN,
        text_dim=1024,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    ),
    "tiny": AutoregressiveArchitecture(
        name="tiny",
        dim=64,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn_dim=128,
        vocabulary=64000,
        embedding_rows=64000,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_TINY_LATENT_SHAPE,
        yarn=None,
        text_dim=None,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    ),
    "small": AutoregressiveArchitecture(
        name="small",
        dim=192,
        layers=8,
        heads=6,
        kv_heads=3,
        head_dim=32,
        ffn_dim=512,
        vocabulary=4096,
        embedding_rows=4096,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_TINY_LATENT_SHAPE,
        yarn=None,
        text_dim=None,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    ),
    "small-video2world": AutoregressiveArchitecture(
        name="small-video2world",
        dim=192,
        layers=8,
        heads=6,
        kv_heads=3,
        head_dim=32,
        ffn_dim=512,
        vocabulary=4096,
        embedding_rows=4160,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_TINY_LATENT_SHAPE,
        yarn=None,
        text_dim=64,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    ),
    "tiny-video2world": AutoregressiveArchitecture(
        name="tiny-video2world",
        dim=64,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn_dim=128,
        vocabulary=64000,
        embedding_rows=64064,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=_TINY_LATENT_SHAPE,
        yarn=Yarn(original_shape=(3, 10, 16), beta_fast=4.0, beta_slow=1.0, scale=2.0),
        text_dim=32,
        recommended_temperature=1.0,
        recommended_top_p=0.7,
    ),
}

DISCRETE_TOKENIZERS: dict[str, TokenizerArchitecture] = {
    "DV8x16x16": TokenizerArchitecture(
        name="DV8x16x16",
        channels=128,
        channel_multipliers=(2, 4, 4),
        residual_blocks=2,
        attention_resolutions=(32,),
        resolution=1024,
        patch_size=4,
        z_channels=16,
        latent_channels=6,
        spatial_compression=16,
        temporal_compression=8,
        fsq_levels=(8, 8, 8, 5, 5, 5),
    ),
    "tiny-DV8x16x16": TokenizerArchitecture(
        name="tiny-DV8x16x16",
        channels=8,
        channel_multipliers=(2, 4, 4),
        residual_blocks=2,
        attention_resolutions=(32,),
        resolution=1024,
        patch_size=4,
        z_channels=16,
        latent_channels=6,
        spatial_compression=16,
        temporal_compression=8,
        fsq_levels=(8, 8, 8, 5, 5, 5),
    ),
    "small-DV8x16x16": TokenizerArchitecture(
        name="small-DV8x16x16",
        channels=32,
        channel_multipliers=(2, 3, 3),
        residual_blocks=2,
        attention_resolutions=(32,),
        resolution=1024,
        patch_size=4,
        z_channels=16,
        latent_channels=4,
        spatial_compression=16,
        temporal_compression=8,
        fsq_levels=(8, 8, 8, 8),
    ),
}

CONTINUOUS_TOKENIZERS: dict[str, TokenizerArchitecture] = {
    "CV8x8x8": TokenizerArchitecture(
        name="CV8x8x8",
        channels=128,
        channel_multipliers=(2, 4, 4),
        residual_blocks=2,
        attention_resolutions=(32,),
        resolution=1024,
        patch_size=4,
        z_channels=16,
        latent_channels=16,
        spatial_compression=8,
        temporal_compression=8,
        fsq_levels=None,
    ),
    "tiny-CV8x8x8": TokenizerArchitecture(
        name="tiny-CV8x8x8",
        channels=8,
        channel_multipliers=(2, 4, 4),
        residual_blocks=2,
        attention_resolutions=(32,),
        resolution=1024,
        patch_size=4,
        z_channels=16,
        latent_channels=16,
        spatial_compression=8,
        temporal_compression=8,
        fsq_levels=None,
    ),
    "small-CV8x8x8": TokenizerArchitecture(
        name="small-CV8x8x8",
        channels=32,
        channel_multipliers=(2, 3, 3),
        residual_blocks=2,
        attention_resolutions=(32,),
        resolution=1024,
        patch_size=4,
        z_channels=16,
        latent_channels=16,
        spatial_compression=8,
        temporal_compression=8,
        fsq_levels=None,
    ),
}

DIFFUSION_DECODERS: dict[str, DiffusionDecoderArchitecture] = {
    "7B": DiffusionDecoderArchitecture(
        name="7B",
        dim=4096,
        layers=28,
        heads=32,
        text_dim=1024,
        adaln_lora_dim=256,
        vocabulary=64000,
        token_dim=32,
        latent_channels=16,
        latent_frames=8,
    ),
    "tiny": DiffusionDecoderArchitecture(
        name="tiny",
        dim=64,
        layers=2,
        heads=2,
        text_dim=32,
        adaln_lora_dim=16,
        vocabulary=64000,
        token_dim=8,
        latent_channels=16,
        latent_frames=8,
    ),
    "small": DiffusionDecoderArchitecture(
        name="small",
        dim=192,
        layers=6,
        heads=3,
        text_dim=64,
        adaln_lora_dim=32,
        vocabulary=4096,
        token_dim=16,
        latent_channels=16,
        latent_frames=8,
    ),
}

TEXT_ENCODERS: dict[str, TextEncoderArchitecture] = {
    "t5-11b": TextEncoderArchitecture(
        name="t5-11b",
        vocabulary=32128,
        dim=1024,
        layers=24,
        heads=128,
        head_dim=128,
        ffn_dim=65536,
        relative_buckets=32,
        max_tokens=TEXT_ROWS,
    ),
    "tiny": TextEncoderArchitecture(
        name="tiny",
        vocabulary=32128,
        dim=32,
        layers=2,
        heads=2,
        head_dim=16,
        ffn_dim=64,
        relative_buckets=32,
        max_tokens=TEXT_ROWS,
    ),
    "small": TextEncoderArchitecture(
        name="small",
        vocabulary=512,
        dim=64,
        layers=2,
        heads=4,
        head_dim=16,
        ffn_dim=128,
        relative_buckets=32,
        max_tokens=TEXT_ROWS,
    ),
}
