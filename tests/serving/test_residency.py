"""One switch, and every stage that has weights hears it: it waits for its turn on the device to use them."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.demo.random_weights import init_random
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.guardrails import GuardrailSettings
from cosmos_triton.pipeline import NETWORKS
from cosmos_triton.residency.policy import Residency
from cosmos_triton.residency.turn import turn
from cosmos_triton.runtimes.examples import example_inputs
from cosmos_triton.serving.parameters import read_parameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import guardrails
from cosmos_triton.serving.stages.diffusion import DiffusionDecoderStage
from cosmos_triton.serving.stages.network import NetworkStage

MODELS = Path(__file__).parents[2] / "model_repository"
GEOMETRY = AUTOREGRESSIVE["tiny"].geometry
CPU = torch.device("cpu")

# The engine of ar_sampler takes turns of its own kind: tests/autoregressive/test_offloaded_engine.py and
# test_sampler_residency.py. The guardrails' networks do in tests/guardrails/test_full_posture.py.
GUARDRAILS = ("prompt_guardrail", "video_guardrail")


def python_stages_on_the_gpu() -> set[str]:
    """The stages of any profile that run Python on a GPU; what has weights is among them."""
    found = set()
    for path in (*MODELS.glob("*/config.pbtxt"), *MODELS.glob("*/configs/torch.pbtxt")):
        config = text_format.Parse(path.read_text(), ModelConfig())
        kinds = {group.kind for group in config.instance_group}
        if config.backend == "python" and ModelConfig().instance_group.add().KIND_GPU in kinds:
            found.add(config.name)
    return found


def network_stage(settings: StageSettings) -> Callable[[], Any]:
    network, folder = NETWORKS[settings.model], CheckpointFolder(settings.checkpoint_dir)
    sizes = network.sizes(GEOMETRY, folder.component(network.component).architecture)
    inputs = {name: value.numpy() for name, value in example_inputs(network, sizes).items()}
    stage = NetworkStage(settings)
    return lambda: stage(inputs)


def diffusion_stage(settings: StageSettings) -> Callable[[], Any]:
    stage = DiffusionDecoderStage(settings)
    return lambda: stage({"tokens": np.zeros(GEOMETRY.token_shape, np.int32)})


WORKING: dict[str, Callable[[StageSettings], Callable[[], Any]]] = {
    **dict.fromkeys(NETWORKS, network_stage),
    "diffusion_decoder": diffusion_stage,
}


def test_every_stage_on_the_gpu_is_walked_over() -> None:
    assert python_stages_on_the_gpu() == {*WORKING, *GUARDRAILS, "ar_sampler"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    init_random("tiny", folder)
    return folder


@pytest.fixture
def settings(checkpoints: Path) -> Callable[..., StageSettings]:
    def make(model: str, **parameters: str) -> StageSettings:
        return StageSettings(model, "cpu", checkpoints, read_parameters(model, parameters, {}))

    return make


@contextmanager
def busy_device() -> Iterator[ThreadPoolExecutor]:
    """Another stage has the turn; work goes to a thread, which is awaited when the turn has ended."""
    with ThreadPoolExecutor(1) as pool, turn(CPU):
        yield pool


@pytest.mark.parametrize("model", sorted(WORKING))
def test_the_switch_makes_a_stage_wait_for_its_turn(
    model: str, settings: Callable[..., StageSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # turns of this test are no one else's
    monkeypatch.setenv("COSMOS_RESIDENCY", "offload")
    how = {"denoiser": "in-process"} if model == "diffusion_decoder" else {"runtime": "torch"}
    work = WORKING[model](settings(model, **how))
    with busy_device() as pool:
        answer = pool.submit(work)
        with pytest.raises(TimeoutError):
            answer.result(0.5)
    assert answer.result().outputs


@pytest.mark.parametrize(
    ("parameters", "everywhere", "expected"),
    [
        ({}, "", Residency.RESIDENT),
        ({}, "offload", Residency.OFFLOAD),
        ({"residency": "offload"}, "", Residency.OFFLOAD),
        ({"residency": "resident"}, "offload", Residency.RESIDENT),
        ({"offload": "true"}, "", Residency.OFFLOAD),  # the former name
        ({"offload": "false"}, "offload", Residency.OFFLOAD),
        ({"offload": "true", "residency": "resident"}, "", Residency.RESIDENT),
    ],
)
@pytest.mark.parametrize("model", GUARDRAILS)
def test_the_guardrails_hear_it(
    model: str,
    parameters: dict[str, str],
    everywhere: str,
    expected: Residency,
    settings: Callable[..., StageSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COSMOS_RESIDENCY", everywhere)
    told: list[GuardrailSettings] = []
    for name in ("load_prompt_guardrail", "load_video_guardrail"):
        monkeypatch.setattr(guardrails, name, lambda chosen, observe: told.append(chosen))
    stage = {
        "prompt_guardrail": guardrails.PromptGuardrailStage,
        "video_guardrail": guardrails.VideoGuardrailStage,
    }[model]
    stage(settings(model, **parameters), Mock())
    assert [(chosen.name, chosen.residency) for chosen in told] == [(model, expected)]


def test_a_wrong_value_is_named(
    settings: Callable[..., StageSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSMOS_RESIDENCY", "lazy")
    with pytest.raises(ConfigurationError, match="COSMOS_RESIDENCY='lazy' is neither"):
        residency(settings("text_encoder"))
