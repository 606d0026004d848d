"""The stages of profile torch, run on the CPU with the tiny checkpoint, against the plain networks."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.demo.random_weights import init_random
from cosmos_triton.diffusion.sampler import decode_tokens
from cosmos_triton.diffusion.settings import DiffusionSettings
from cosmos_triton.errors import ConfigurationError, InvalidInput
from cosmos_triton.pipeline import NETWORKS, Network
from cosmos_triton.runtimes.examples import example_inputs
from cosmos_triton.runtimes.stage_modules import load_module
from cosmos_triton.serving.parameters import read_parameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages.diffusion import DiffusionDecoderStage
from cosmos_triton.serving.stages.network import NetworkStage

GEOMETRY = AUTOREGRESSIVE["tiny"].geometry


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


@pytest.mark.parametrize("residency", ["resident", "offload"])
@pytest.mark.parametrize("model", sorted(NETWORKS))
def test_network_stages_compute_what_the_module_computes(
    model: str, residency: str, settings: Callable[..., StageSettings], checkpoints: Path
) -> None:
    folder, network = CheckpointFolder(checkpoints), NETWORKS[model]
    sizes = network.sizes(GEOMETRY, folder.component(network.component).architecture)
    examples = example_inputs(network, sizes)
    with torch.inference_mode():
        expected = load_module(network, folder, torch.float32)(*examples.values())
    running = NetworkStage(settings(model, runtime="torch", residency=residency))
    found = running({name: value.numpy() for name, value in examples.items()}).outputs[network.output.name]
    assert isinstance(found, torch.Tensor if network.read_on_gpu else np.ndarray)
    found = torch.as_tensor(found)
    assert found.dtype == expected.dtype
    if expected.dtype == torch.uint8:  # a kernel may depend on where a weight lies in memory
        difference = (found.int() - expected.int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 1e-4
    else:
        torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """Tokens [5, h, w] and a seed, as tensors of the stage."""
    tokens = np.random.default_rng(0).integers(0, 64000, GEOMETRY.token_shape, dtype=np.int32)
    return tokens, np.array([7])


@pytest.mark.parametrize("residency", ["resident", "offload"])
def test_the_in_process_decoder_makes_the_published_latents(
    residency: str, settings: Callable[..., StageSettings], checkpoints: Path, world: tuple
) -> None:
    folder = CheckpointFolder(checkpoints)
    plain = load_module(NETWORKS["diffusion_denoiser"], folder, torch.float32)
    text = folder.default_text().float()
    tokens, seed = world
    with torch.inference_mode():
        expected = decode_tokens(
            lambda seen: lambda latents, timestep: plain(latents, timestep, seen, text),
            torch.from_numpy(tokens),
            7,
            DiffusionSettings(),
        )
    stage = DiffusionDecoderStage(settings("diffusion_decoder", denoiser="in-process", residency=residency))
    result = stage({"tokens": tokens, "seed": seed})
    assert result.section["diffusion"] == {
        "denoiser": "in-process",
        "steps": 15,
        "guidance": 1.8,
        "latent_frames": 8,
        "precision": "fp32",
    }
    torch.testing.assert_close(result.outputs["latents"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "latent_frames", "precision"),
    [
        ({"preset": "reduced"}, 5, "fp8"),
        ({"preset": "reduced", "frames": "padded"}, 8, "fp8"),
        ({"frames": "own"}, 5, "fp32"),
        ({"setting": "fast"}, 5, "fp8"),  # the former name
    ],
)
def test_a_preset_and_what_changes_it(
    parameters: dict[str, str],
    latent_frames: int,
    precision: str,
    settings: Callable[..., StageSettings],
    world: tuple,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens, seed = world
    stage = DiffusionDecoderStage(settings("diffusion_decoder", denoiser="in-process", **parameters))
    assert ("`setting` is now `preset`: fast is reduced" in caplog.text) == ("setting" in parameters)
    result = stage({"tokens": tokens, "seed": seed})
    told = result.section["diffusion"]
    assert (told["latent_frames"], told["precision"]) == (latent_frames, precision)
    assert result.outputs["latents"].shape == (16, 5, *GEOMETRY.latent_plane)
    assert result.outputs["latents"].isfinite().all()


def _examples(network: Network, folder: CheckpointFolder) -> dict[str, np.ndarray]:
    sizes = network.sizes(GEOMETRY, folder.component(network.component).architecture)
    return {name: value.numpy() for name, value in example_inputs(network, sizes).items()}


@pytest.fixture(scope="module")
def good_inputs(checkpoints: Path) -> dict[str, dict[str, np.ndarray]]:
    """Inputs that each network stage takes."""
    folder = CheckpointFolder(checkpoints)
    return {name: _examples(network, folder) for name, network in NETWORKS.items()}


@pytest.fixture(scope="module")
def running(checkpoints: Path) -> Callable[[str], NetworkStage | DiffusionDecoderStage]:
    """The stage of a name, started once."""

    @functools.cache
    def start(model: str) -> NetworkStage | DiffusionDecoderStage:
        decoder = model == "diffusion_decoder"
        parameters = {"denoiser": "in-process"} if decoder else {"runtime": "torch"}
        settings = StageSettings(model, "cpu", checkpoints, read_parameters(model, parameters, {}))
        return (DiffusionDecoderStage if decoder else NetworkStage)(settings)

    return start


def changed(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[array.size // 2] = value
    return array


@pytest.mark.parametrize(
    ("model", "name", "value", "message"),
    [
        ("video_encoder", "frames", np.nan, "frames holds nan, which is not a finite number"),
        ("video_encoder", "frames", np.inf, "frames holds inf"),
        ("video_decoder", "tokens", -1, r"tokens holds -1, which is not in 0\.\.63999"),
        ("video_decoder", "tokens", 64000, "tokens holds 64000"),
        ("video_decoder", "tokens", 2**31 - 1, "tokens holds 2147483647"),
        ("text_encoder", "input_ids", -1, r"input_ids holds -1, which is not in 0\.\.32127"),
        ("text_encoder", "input_ids", 32128, "input_ids holds 32128"),
        ("text_encoder", "attention_mask", 77, r"attention_mask holds 77, which is not in 0\.\.1"),
        ("diffusion_denoiser", "tokens", 64000, "tokens holds 64000"),
        ("diffusion_denoiser", "latents", np.nan, "latents holds nan"),
        ("diffusion_denoiser", "timestep", np.inf, "timestep holds inf"),
        ("diffusion_denoiser", "text_embeddings", -np.inf, "text_embeddings holds -inf"),
        ("latent_decoder", "latents", np.nan, "latents holds nan"),
    ],
)
def test_a_value_out_of_range_is_refused_before_the_network_sees_it(
    model: str,
    name: str,
    value: float,
    message: str,
    running: Callable[[str], NetworkStage],
    good_inputs: dict[str, dict[str, np.ndarray]],
) -> None:
    inputs = good_inputs[model]
    with pytest.raises(InvalidInput, match=message):
        running(model)({**inputs, name: changed(inputs[name], value)})


@pytest.mark.parametrize("shape", [(5, 10, 15), (5, 0, 16), (5, 40, 64)])
def test_another_token_grid_is_refused(shape: tuple[int, ...], running: Callable) -> None:
    with pytest.raises(InvalidInput, match=r"tokens has shape .*, not \[5, 10, 16\]"):
        running("video_decoder")({"tokens": np.zeros(shape, dtype=np.int32)})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"tokens": np.full(GEOMETRY.token_shape, -1, np.int32)},
            r"tokens holds -1, which is not in 0\.\.63999",
        ),
        ({"tokens": np.zeros((5, 10, 15), np.int32)}, r"tokens has shape \[5, 10, 15\], not \[5, 10, 16\]"),
        ({"text_embeddings": np.full((512, 32), np.nan, np.float32)}, "text_embeddings holds nan"),
        ({"text_embeddings": np.zeros((512, 31), np.float32)}, r"text_embeddings has shape \[512, 31\]"),
    ],
)
def test_the_diffusion_decoder_refuses_what_its_network_cannot_take(
    bad: dict[str, np.ndarray], message: str, running: Callable, world: tuple
) -> None:
    with pytest.raises(InvalidInput, match=message):
        running("diffusion_decoder")({"tokens": world[0], **bad})


def test_a_network_that_triton_runs_is_not_run_here(settings: Callable[..., StageSettings]) -> None:
    with pytest.raises(ConfigurationError, match="runtime='tensorrt' runs in Triton, not in Python"):
        NetworkStage(settings("latent_decoder"))
