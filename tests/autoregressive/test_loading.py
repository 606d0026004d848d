"""From a component of a checkpoint folder to an engine: type, operations and memory are decided here."""

import tempfile
from pathlib import Path

import pytest
import torch

from cosmos_triton.autoregressive import plain
from cosmos_triton.autoregressive.loading import load_engine, load_transformer
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.checkpoints.folder import Component
from cosmos_triton.residency.policy import Residency
from support.engines import BASE, alone, request, submit
from support.tiny_autoregressive import architecture, weights

CPU = torch.device("cpu")


@pytest.mark.parametrize("residency", list(Residency))
def test_an_engine_of_a_component_makes_the_networks_videos(
    residency: Residency, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the turns of offloaded stages
    arch = architecture()
    component = Component("base", arch, weights(arch), (), Path())  # type: ignore[arg-type]
    engine = load_engine(component, CPU, residency, EngineSettings(max_videos=1))
    engine.start()
    video = submit(engine, request(latents=4)).video()
    engine.stop()
    assert (video.tokens == alone(request(latents=4), BASE)).all()


def test_on_a_cpu_a_network_is_float32_and_plain() -> None:
    arch = architecture()
    published = {name: tensor.bfloat16() for name, tensor in weights(arch).items()}
    network = load_transformer(arch, published, CPU)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.operations is plain
