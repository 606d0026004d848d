"""The stages of profile torch, run on the CPU with the tiny checkpoint, against the plain networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.demo.random_weights import init_random
from cosmos_triton.diffusion.sampler import DiffusionSettings, decode_tokens
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.pipeline import NETWORKS
from cosmos_triton.runtimes.examples import example_inputs
from cosmos_triton.runtimes.stage_modules import load_module
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
        return StageSettings(model, "cpu", checkpoints, parameters)

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
    running = NetworkStage(settings(model, runtime="torch", residency=residency), None)
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
            lambda latents, timestep, window: plain(latents, timestep, window, text),
            torch.from_numpy(tokens),
            GEOMETRY,
            7,
            DiffusionSettings(),
        )
    stage = DiffusionDecoderStage(
        settings("diffusion_decoder", denoiser="in-process", residency=residency), None
    )
    result = stage({"tokens": tokens, "seed": seed})
    assert result.section["diffusion"]["window"] == 8
    torch.testing.assert_close(result.outputs["latents"], expected, rtol=1e-3, atol=1e-3)


def test_the_fast_setting_sees_five_frames(settings: Callable[..., StageSettings], world: tuple) -> None:
    tokens, seed = world
    stage = DiffusionDecoderStage(settings("diffusion_decoder", denoiser="in-process", setting="fast"), None)
    result = stage({"tokens": tokens, "seed": seed})
    assert result.section["diffusion"] == {"steps": 15, "guidance": 1.8, "window": 5, "precision": "fp8"}
    assert result.outputs["latents"].shape == (16, 5, *GEOMETRY.latent_plane)
    assert result.outputs["latents"].isfinite().all()


@pytest.mark.parametrize(
    ("model", "parameters", "message"),
    [
        ("latent_decoder", {"runtime": "jax"}, "runtime='jax' is neither onnx nor torch"),
        ("latent_decoder", {"runtime": "torch", "residency": "lazy"}, "residency='lazy' is neither"),
        ("diffusion_decoder", {"denoiser": "x"}, "denoiser='x' is neither"),
        ("diffusion_decoder", {"denoiser": "in-process", "setting": "x"}, "setting='x' is neither"),
    ],
)
def test_wrong_parameters_are_named(
    model: str, parameters: dict[str, str], message: str, settings: Callable[..., StageSettings]
) -> None:
    stage = DiffusionDecoderStage if model == "diffusion_decoder" else NetworkStage
    with pytest.raises(ConfigurationError, match=message):
        stage(settings(model, **parameters), None)


def test_one_switch_offloads_every_stage(
    settings: Callable[..., StageSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosmos_triton.residency.weights import Residency
    from cosmos_triton.serving.residency import residency

    assert residency(settings("text_encoder", residency="")) is Residency.RESIDENT
    monkeypatch.setenv("COSMOS_RESIDENCY", "offload")
    assert residency(settings("text_encoder", residency="")) is Residency.OFFLOAD
    assert residency(settings("text_encoder", residency="resident")) is Residency.RESIDENT
