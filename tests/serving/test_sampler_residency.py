"""The sampler's weights are where the configuration says."""

import tempfile
from pathlib import Path

import pytest

from cosmos_triton.checkpoints.folder import Component
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.parameters import SamplerParameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import autoregressive
from support.tiny_autoregressive import architecture, weights


@pytest.mark.parametrize(
    ("parameter", "everywhere", "stays"),
    [("", "", True), ("", "offload", False), ("offload", "", False), ("resident", "offload", True)],
)
def test_the_sampler_honours_residency(
    parameter: str, everywhere: str, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("COSMOS_RESIDENCY", everywhere)
    engine = autoregressive._start_engine(component(), settings(residency=parameter), Metrics())
    network = engine._runner.network
    engine.stop()
    assert engine._memory.stays == stays
    assert bool(network.output.any()) == stays
    assert bool(network.rotary.any()) == stays


def component() -> "Component[object]":
    arch = architecture()
    return Component("base", arch, weights(arch), (), Path())  # type: ignore[arg-type]


def settings(**parameters: str) -> StageSettings[SamplerParameters]:
    return StageSettings("ar_sampler", "cpu", Path(), SamplerParameters(**parameters))
