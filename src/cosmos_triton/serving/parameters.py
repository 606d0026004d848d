"""The parameters of every stage: one frozen dataclass each, the only place of names, types and defaults.

A value comes from the environment variable COSMOS_<STAGE>_<PARAMETER>, else from the `parameters` of the
pbtxt in force, else from here. A pbtxt states only what `PROFILE_VALUES` lists. Imports no torch, so that
whoever starts or describes a server can read it.
"""

import difflib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.pipeline import NETWORKS, STAGES

TRITON_PARAMETERS = ("FORCE_CPU_ONLY_INPUT_TENSORS",)  # Triton's own, in a pbtxt beside ours

_PREFIX = "COSMOS_"
_ALIKE = 0.85  # from this likeness on a variable's name is taken for a misspelt one


def _parameter(
    default: Any, meaning: str, choices: tuple[str, ...] = (), where: tuple[str, str] | None = None
) -> Any:
    """A field. `where` = (other parameter, value): the field has no effect unless that one has that value."""
    return field(default=default, metadata={"meaning": meaning, "choices": choices, "where": where})


def _residency(where: tuple[str, str] | None = None) -> Any:
    return _parameter(
        "",
        "`resident` keeps the weights (the sampler: and the KV cache) on the GPU, `offload` in pinned host "
        "memory between requests; empty: what `COSMOS_RESIDENCY` says, else `resident`",
        choices=("", "resident", "offload"),
        where=where,
    )


@dataclass(frozen=True)
class StageParameters:
    """Base of all: a stage without parameters.

    Raises:
        ConfigurationError: a value is negative or none of the field's choices.
    """

    def __post_init__(self) -> None:
        for declared in fields(self):
            value, choices = getattr(self, declared.name), declared.metadata["choices"]
            if choices and value not in choices:
                listed = ", ".join(choice for choice in choices if choice)
                raise ConfigurationError(f"{declared.name}={value!r} is none of {listed}")
            if declared.type is int and value < 0:
                raise ConfigurationError(f"{declared.name}={value} is negative")


@dataclass(frozen=True)
class SamplerParameters(StageParameters):
    """Of `ar_sampler`."""

    base_model: str = _parameter(
        "", "which base model to serve where the checkpoint folder holds several, e.g. `12B`"
    )
    video2world_model: str = _parameter("", "the same for Video2World models, e.g. `13B`")
    max_videos: int = _parameter(
        8, "videos in one batch, each with a KV-cache slot; 0: as many as fit the GPU's free memory"
    )
    max_queue: int = _parameter(32, "videos that may wait for a slot; the next one is answered UNAVAILABLE")
    window: int = _parameter(
        0,
        "tokens verified in one pass (lossless parallel decoding); 1 decodes one by one, 0 chooses",
    )
    residency: str = _residency()


@dataclass(frozen=True)
class GuardrailParameters(StageParameters):
    """Of `prompt_guardrail` and `video_guardrail`."""

    posture: str = _parameter(
        "full",
        "what is enforced: see [guardrails.md](guardrails.md)",
        choices=("full", "built-in", "disabled"),
    )
    residency: str = _residency()
    offload: bool = _parameter(
        False, "`true`: the former way to say residency=offload; goes with the next release"
    )


@dataclass(frozen=True)
class DiffusionDecoderParameters(StageParameters):
    """Of `diffusion_decoder`."""

    denoiser: str = _parameter(
        "diffusion_denoiser",
        "`diffusion_denoiser` calls the model of that name for each step; `in-process` holds its network",
        choices=("diffusion_denoiser", "in-process"),
    )
    preset: str = _parameter(
        "exact",
        "`exact`: the published computation; `reduced`: the world's own frames, in float8",
        choices=("exact", "reduced"),
        where=("denoiser", "in-process"),
    )
    frames: str = _parameter(
        "",
        "latent frames the network sees: `padded` to the eight it was trained on, or the world's `own` five; "
        "empty: as the preset",
        choices=("", "padded", "own"),
        where=("denoiser", "in-process"),
    )
    precision: str = _parameter(
        "",
        "of the large matrix products: `bf16` or `fp8`; empty: as the preset",
        choices=("", "bf16", "fp8"),
        where=("denoiser", "in-process"),
    )
    setting: str = _parameter(
        "",
        "the preset's former name: `fast` is `reduced`; goes with the next release",
        choices=("", "exact", "fast"),
        where=("denoiser", "in-process"),
    )
    residency: str = _residency(where=("denoiser", "in-process"))


@dataclass(frozen=True)
class NetworkParameters(StageParameters):
    """Of the stages that are one network. On `tensorrt` Triton runs a plan and reads none of them."""

    runtime: str = _parameter("tensorrt", "what runs the network", choices=("tensorrt", "onnx", "torch"))
    threads: int = _parameter(0, "threads of one forward pass; 0: one per core", where=("runtime", "onnx"))
    residency: str = _residency(where=("runtime", "torch"))


_OTHERS: dict[str, type[StageParameters]] = {
    "prompt_guardrail": GuardrailParameters,
    "video_guardrail": GuardrailParameters,
    "ar_sampler": SamplerParameters,
    "diffusion_decoder": DiffusionDecoderParameters,
}

PARAMETERS: dict[str, type[StageParameters]] = {
    stage.name: NetworkParameters if stage.network else _OTHERS.get(stage.name, StageParameters)
    for stage in STAGES.values()
}
"""By the name of the stage."""

PROFILE_VALUES: dict[str, dict[str, dict[str, str]]] = {
    "default": {
        "prompt_guardrail": {"posture": "full"},
        "video_guardrail": {"posture": "full"},
    },
    "torch": {
        "prompt_guardrail": {"posture": "full"},
        "video_guardrail": {"posture": "full"},
        "diffusion_decoder": {"denoiser": "in-process"},
        **{network: {"runtime": "torch"} for network in NETWORKS},
    },
    "cpu": {
        "prompt_guardrail": {"posture": "built-in"},
        "video_guardrail": {"posture": "built-in"},
        **{network: {"runtime": "onnx"} for network in NETWORKS},
    },
}
"""What the pbtxts of a profile set, by stage. The posture is always in sight, its default too."""


def variable(stage: str, parameter: str) -> str:
    """The environment variable that sets a stage's parameter: COSMOS_AR_SAMPLER_MAX_VIDEOS."""
    return f"{_PREFIX}{stage}_{parameter}".upper()


def read_parameters(
    stage: str, written: Mapping[str, str], environment: Mapping[str, str]
) -> StageParameters:
    """The parameters in force for a stage.

    Args:
        stage: name of the Triton model; one that is not in `PARAMETERS` has none.
        written: the `parameters` of its pbtxt.
        environment: environment variables; they have the last word.

    Raises:
        ConfigurationError: a value does not fit, or the pbtxt sets something that is no parameter.
    """
    declared = _declared(stage)
    for name in written:
        if name not in declared and name not in TRITON_PARAMETERS:
            raise ConfigurationError(f"{stage}: its pbtxt sets {name!r}, which is none of its parameters")
    texts = {**written, **_from_environment(stage, environment)}
    try:
        values = {key: _value(entry, texts[key]) for key, entry in declared.items() if key in texts}
        return PARAMETERS.get(stage, StageParameters)(**values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{stage}: {error}") from None


def ignored_variables(environment: Mapping[str, str], profile: str) -> dict[str, str]:
    """Environment variables that look like a stage's parameter and have no effect → why, in one sentence.

    Args:
        environment: the server's environment variables.
        profile: `default`, `torch` or `cpu`.
    """
    reasons = {
        name: reason
        for stage in PARAMETERS
        for name, reason in ignored_by_stage(
            stage, PROFILE_VALUES[profile].get(stage, {}), environment
        ).items()
    }
    valid = [variable(stage, parameter) for stage in PARAMETERS for parameter in _declared(stage)]
    for name in environment.keys() - reasons.keys() - set(valid):
        alike = difflib.get_close_matches(name, valid, n=1, cutoff=_ALIKE)
        if name.startswith(_PREFIX) and alike:
            reasons[name] = f"{name} is ignored: no stage reads it (there is {alike[0]})"
    return reasons


def ignored_by_stage(
    stage: str, written: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """The same for the variables of one stage, whose pbtxt has the parameters `written`."""
    given = _from_environment(stage, environment)
    defaults = {key: str(entry.default) for key, entry in _declared(stage).items()}
    values = {**defaults, **written, **given}
    planned = PARAMETERS.get(stage) is NetworkParameters and "runtime" not in written
    reasons = {}
    for key in given:
        reason = "Triton runs a TensorRT plan there" if planned else _why_ignored(stage, key, values)
        if reason:
            reasons[variable(stage, key)] = f"{variable(stage, key)} is ignored: {reason}"
    return reasons


def _why_ignored(stage: str, key: str, values: Mapping[str, str]) -> str:
    declared = _declared(stage)
    if key not in declared:
        return f"{stage} has {', '.join(declared) or 'no parameters'}"
    other, needed = declared[key].metadata["where"] or ("", "")
    if other and values[other] != needed:
        return f"{key} takes effect where {other} is {needed}, and it is {values[other]}"
    return ""


def _declared(stage: str) -> dict[str, "Field[Any]"]:
    return {entry.name: entry for entry in fields(PARAMETERS.get(stage, StageParameters))}


def _from_environment(stage: str, environment: Mapping[str, str]) -> dict[str, str]:
    prefix = variable(stage, "")
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in environment.items()
        if name.startswith(prefix)
    }


def _value(declared: "Field[Any]", text: str) -> Any:
    if declared.type is int:
        try:
            return int(text)
        except ValueError:
            raise ConfigurationError(f"{declared.name}={text!r} is not an integer") from None
    if declared.type is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigurationError(f"{declared.name}={text!r} is neither true nor false")
        return text.lower() == "true"
    return text
