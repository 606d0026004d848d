from dataclasses import replace
from typing import Any

import pytest

from cosmos_triton.architectures import DIFFUSION_DECODERS
from cosmos_triton.diffusion.settings import PRESETS, DiffusionSettings, Frames
from cosmos_triton.errors import ConfigurationError


def test_exact_is_the_published_computation() -> None:
    settings = DiffusionSettings.preset("exact")
    assert settings == DiffusionSettings()
    assert (settings.guidance, settings.steps, settings.latent_frames) == (1.8, 15, 8)
    assert (settings.frames, settings.precision) == ("padded", "bf16")
    assert {architecture.latent_frames for architecture in DIFFUSION_DECODERS.values()} == {8}


def test_presets_can_be_changed_field_by_field() -> None:
    reduced = PRESETS["reduced"]
    assert (reduced.frames, reduced.precision) == ("own", "fp8")
    assert DiffusionSettings.preset("reduced", frames="padded") == DiffusionSettings(precision="fp8")
    assert DiffusionSettings.preset("exact", frames="own", precision="fp8") == reduced


@pytest.mark.parametrize(("frames", "seen"), [("padded", 8), ("own", 5)])
def test_what_the_network_sees_of_five_frames(frames: Frames, seen: int) -> None:
    assert DiffusionSettings(frames=frames).seen_frames(5) == seen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "not 0"),
        ({"sigma_min": 90.0}, "90.0"),
        ({"sigma_data": 0.0}, "not 0.0"),
        ({"latent_frames": 0}, "not 0"),
        ({"frames": "window"}, "frames='window' is neither padded nor own"),
        ({"precision": "fp4"}, "precision='fp4' is neither bf16 nor fp8"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replace(DiffusionSettings(), **changes)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigurationError, match="preset='slow' is neither exact nor reduced"):
        DiffusionSettings.preset("slow")
