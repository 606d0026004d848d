"""The pipeline, stated once: networks, stages, ensembles, profiles. Imports no torch.

Whatever lists one of them reads it here: the launcher, the report, the export, the check of plans, the
benchmarks, the tests. What each network needs from PyTorch, its loader, is in
`runtimes/stage_modules.py`. The tensors of the stages that are no networks stand in their
`config.pbtxt` alone; a test holds both against each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cosmos_triton.architectures import TEXT_ROWS, Kind
from cosmos_triton.geometry import CONTEXT_FRAMES, CONTEXT_LATENTS, VideoGeometry

DType = Literal["float32", "int32", "uint8"]
Precision = Literal["float32", "bfloat16"]
ComponentName = Literal["discrete_tokenizer", "continuous_tokenizer", "diffusion_decoder", "text_encoder"]
Values = Literal[
    "pixels", "unit normal", "token ids", "text ids", "text mask", "text rows", "middle timestep"
]
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class NetworkTensor:
    """One input or output of a network.

    Args:
        name: as in the stage's `config.pbtxt`.
        dtype: of its numbers.
        axes: numbers, and letters that `Network.sizes` gives a number.
        values: what an input holds; examples are made accordingly. None for an output.
    """

    name: str
    dtype: DType
    axes: tuple[int | str, ...]
    values: Values | None = None

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The axes as numbers."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)

    def has_shape(self, shape: tuple[int, ...], sizes: Sizes) -> bool:
        """Whether the axes may be these numbers; a letter without a size may be any."""
        numbers = (sizes.get(axis) if isinstance(axis, str) else axis for axis in self.axes)
        return len(shape) == len(self.axes) and all(
            number in (None, found) for number, found in zip(numbers, shape, strict=True)
        )


@dataclass(frozen=True)
class Tolerance:
    """How far a runtime may be from PyTorch in one precision.

    Float outputs are compared by their largest difference relative to the largest value; token ids
    by the share that differs; pixels by the share that is off by more than one level.
    """

    relative: float = 0.0
    differing: float = 0.0


@dataclass(frozen=True)
class Network:
    """One network that is a stage of its own.

    Args:
        name: of its stage, and of the files made from it.
        component: the published network it is made of, by the name of `CheckpointFolder`'s accessor.
        module: the library's module that defines it.
        inputs: in the order of the network's arguments.
        output: what the network returns.
        letters: further axis letters, and the fields of the component's architecture that they stand for.
        precision: of weights and activations on a GPU.
        tolerance: of ONNX Runtime, which computes in float32.
        plan_tolerance: of the TensorRT plan, which computes in `precision` (float32 means TF32 there).
        blocks: the submodule whose children run one after the other, once each; empty for a shallow network.
        companions: patterns of further files in the component's directory that the network holds.
        read_on_gpu: whether stages on a GPU read the output. All others are handed over on the host,
            where their readers are.
    """

    name: str
    component: ComponentName
    module: str
    inputs: tuple[NetworkTensor, ...]
    output: NetworkTensor
    precision: Precision
    tolerance: Tolerance
    plan_tolerance: Tolerance
    letters: Mapping[str, str] = field(default_factory=dict)
    blocks: str = ""
    companions: tuple[str, ...] = ()
    read_on_gpu: bool = False

    @property
    def tensors(self) -> tuple[NetworkTensor, ...]:
        """Inputs, then the output."""
        return (*self.inputs, self.output)

    def sizes(self, video: VideoGeometry, architecture: Any) -> dict[str, int]:
        """A number for every axis letter.

        Args:
            video: the size of video.
            architecture: of the component.
        """
        own = {letter: int(getattr(architecture, name)) for letter, name in self.letters.items()}
        return video_sizes(video) | own


def video_sizes(video: VideoGeometry) -> dict[str, int]:
    """F frames, T latent frames; H, W pixels; h, w tokens; y, x latent rows and columns."""
    latents, rows, columns = video.token_shape
    latent_rows, latent_columns = video.latent_plane
    return {
        "F": video.frames,
        "T": latents,
        "H": video.height,
        "W": video.width,
        "h": rows,
        "w": columns,
        "y": latent_rows,
        "x": latent_columns,
    }


_FRAMES = NetworkTensor("frames", "uint8", ("F", "H", "W", 3))

# The most expensive to export first, so that two workers end together.
#
# Precisions: diffusion network and T5 as published (T5 overflows in float16). The tokenizers' decoders
# likewise: that moves pixels by 0.6 levels on average. Their encoder stays in float32, because bfloat16
# changes 4 % of the token ids (benchmarks/results/precision-full-cpu.json), and it is small.
NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            name="video_decoder",
            component="discrete_tokenizer",
            module="cosmos_triton.networks.discrete_tokenizer",
            inputs=(NetworkTensor("tokens", "int32", ("T", "h", "w"), "token ids"),),
            output=_FRAMES,
            precision="bfloat16",
            tolerance=Tolerance(),
            plan_tolerance=Tolerance(differing=0.25),
        ),
        Network(
            name="latent_decoder",
            component="continuous_tokenizer",
            module="cosmos_triton.networks.continuous_tokenizer",
            inputs=(NetworkTensor("latents", "float32", ("Z", "T", "y", "x"), "unit normal"),),
            output=_FRAMES,
            letters={"Z": "latent_channels"},
            precision="bfloat16",
            tolerance=Tolerance(),
            plan_tolerance=Tolerance(differing=0.25),
            companions=("mean_std.*",),
        ),
        Network(
            name="video_encoder",
            component="discrete_tokenizer",
            module="cosmos_triton.networks.discrete_tokenizer",
            inputs=(NetworkTensor("frames", "float32", (3, CONTEXT_FRAMES, "H", "W"), "pixels"),),
            output=NetworkTensor("tokens", "int32", (CONTEXT_LATENTS, "h", "w")),
            precision="float32",
            tolerance=Tolerance(differing=1e-3),
            plan_tolerance=Tolerance(differing=0.02),
        ),
        Network(
            name="diffusion_denoiser",
            component="diffusion_decoder",
            module="cosmos_triton.diffusion.transformer",
            inputs=(
                NetworkTensor("latents", "float32", ("Z", "V", "y", "x"), "unit normal"),
                NetworkTensor("timestep", "float32", (1,), "middle timestep"),
                NetworkTensor("tokens", "int32", ("V", "h", "w"), "token ids"),
                NetworkTensor("text_embeddings", "float32", (TEXT_ROWS, "C"), "text rows"),
            ),
            output=NetworkTensor("predictions", "float32", (2, "Z", "V", "y", "x")),
            letters={"Z": "latent_channels", "V": "latent_frames", "C": "text_dim"},
            precision="bfloat16",
            tolerance=Tolerance(relative=1e-4),
            plan_tolerance=Tolerance(relative=5e-2),
            blocks="network.transformer.transformer_blocks",
        ),
        Network(
            name="text_encoder",
            component="text_encoder",
            module="cosmos_triton.networks.text_encoder",
            inputs=(
                NetworkTensor("input_ids", "int32", (TEXT_ROWS,), "text ids"),
                NetworkTensor("attention_mask", "int32", (TEXT_ROWS,), "text mask"),
            ),
            output=NetworkTensor("text_embeddings", "float32", (TEXT_ROWS, "C")),
            letters={"C": "dim"},
            precision="bfloat16",
            tolerance=Tolerance(relative=1e-4),
            plan_tolerance=Tolerance(relative=3e-2),
            blocks="encoder.block",
            read_on_gpu=True,
        ),
    )
}
"""By the name of the stage; the order is that of an export."""


@dataclass(frozen=True)
class Stage:
    """One Triton model that does a part of the work.

    Args:
        name: of its folder in `model_repository/`.
        reports: whether it takes the report and hands it on with its own section and times.
        network: the network it is, where it is nothing else.
        called_by: the stage that calls it, where it is no step of the ensembles.
    """

    name: str
    reports: bool = True
    network: Network | None = None
    called_by: str | None = None


def _network(name: str, called_by: str | None = None) -> Stage:
    """A stage that is a network; an engine cannot write to the report."""
    return Stage(name, reports=False, network=NETWORKS[name], called_by=called_by)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("media_decoder"),
        _network("video_encoder"),
        Stage("prompt_guardrail"),
        Stage("text_tokenizer", reports=False),
        _network("text_encoder"),
        Stage("ar_sampler"),
        Stage("diffusion_decoder"),
        _network("diffusion_denoiser", called_by="diffusion_decoder"),
        _network("latent_decoder"),
        _network("video_decoder"),
        Stage("video_guardrail"),
        Stage("media_encoder"),
    )
}
"""By name, in the order in which a request comes to them: one after the other, never two at a time."""


@dataclass(frozen=True)
class Ensemble:
    """One public model: what a client asks for.

    Args:
        name: of its folder in `model_repository/`.
        kind: of the autoregressive model behind it.
        stages: names of its stages, in the order of `STAGES`.
    """

    name: str
    kind: Kind
    stages: tuple[str, ...]

    @property
    def steps(self) -> tuple[Stage, ...]:
        """The stages that the ensemble itself runs, without those that a stage calls."""
        stages = (STAGES[name] for name in self.stages)
        return tuple(stage for stage in stages if stage.called_by is None)

    @property
    def gaps(self) -> dict[tuple[str, str], str]:
        """For two stages that report one after the other, the networks that run between them."""
        gaps = {}
        before, silent = "", list[str]()
        for stage in self.steps:
            if stage.network is not None:
                silent.append(stage.name)
            if stage.reports:
                if silent:
                    gaps[before, stage.name] = " and ".join(silent)
                before, silent = stage.name, []
        return gaps


ENSEMBLES: dict[str, Ensemble] = {
    ensemble.name: ensemble
    for ensemble in (
        Ensemble(
            "cosmos_base",
            Kind.BASE,
            (
                "media_decoder",
                "video_encoder",
                "ar_sampler",
                "diffusion_decoder",
                "diffusion_denoiser",
                "latent_decoder",
                "video_guardrail",
                "media_encoder",
            ),
        ),
        Ensemble(
            "cosmos_base_fast",
            Kind.BASE,
            (
                "media_decoder",
                "video_encoder",
                "ar_sampler",
                "video_decoder",
                "video_guardrail",
                "media_encoder",
            ),
        ),
        Ensemble(
            "cosmos_video2world",
            Kind.VIDEO2WORLD,
            (
                "media_decoder",
                "video_encoder",
                "prompt_guardrail",
                "text_tokenizer",
                "text_encoder",
                "ar_sampler",
                "diffusion_decoder",
                "diffusion_denoiser",
                "latent_decoder",
                "video_guardrail",
                "media_encoder",
            ),
        ),
        Ensemble(
            "cosmos_video2world_fast",
            Kind.VIDEO2WORLD,
            (
                "media_decoder",
                "video_encoder",
                "prompt_guardrail",
                "text_tokenizer",
                "text_encoder",
                "ar_sampler",
                "video_decoder",
                "video_guardrail",
                "media_encoder",
            ),
        ),
    )
}
"""By name."""


@dataclass(frozen=True)
class Profile:
    """One way to run the stages: which of a model's configurations is taken.

    Args:
        name: of `configs/NAME.pbtxt`; `default` is `config.pbtxt` itself.
        runs: what the networks run on.
        without: stages that are not loaded.
    """

    name: str
    runs: str
    without: tuple[str, ...] = ()


DEFAULT = "default"
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(DEFAULT, "TensorRT plans"),
        # diffusion_decoder holds the network itself there
        Profile("torch", "PyTorch on the GPU", without=("diffusion_denoiser",)),
        Profile("cpu", "ONNX Runtime"),
    )
}
"""By name."""


def loaded_stages(ensembles: tuple[str, ...], profile: str = DEFAULT) -> tuple[Stage, ...]:
    """The stages that a server of these ensembles loads."""
    needed = {name for ensemble in ensembles for name in ENSEMBLES[ensemble].stages}
    needed -= set(PROFILES[profile].without)
    return tuple(stage for stage in STAGES.values() if stage.name in needed)


def loaded_networks(ensembles: tuple[str, ...], profile: str = DEFAULT) -> tuple[str, ...]:
    """The stages among them that are networks."""
    return tuple(stage.name for stage in loaded_stages(ensembles, profile) if stage.network is not None)
