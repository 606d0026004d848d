import shutil
from pathlib import Path

import pytest
import torch

from cosmos_triton.architectures import Kind
from cosmos_triton.checkpoints.catalog import autoregressive_models, geometry, servable_ensembles
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.demo.random_weights import init_random
from cosmos_triton.errors import CheckpointError, ConfigurationError
from cosmos_triton.pipeline import ENSEMBLES
from cosmos_triton.server.commands import chosen_models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    init_random("tiny", folder)
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def test_a_whole_folder_serves_everything_at_one_size(tiny: Path) -> None:
    assert servable_ensembles(tiny) == (list(ENSEMBLES), {})
    models = autoregressive_models(CheckpointFolder(tiny))
    assert [component.architecture.name for component in models.values()] == ["tiny", "tiny-video2world"]
    assert geometry(CheckpointFolder(tiny)).height == 160


def test_without_the_diffusion_decoder_the_fast_ensembles_remain(copy: Path) -> None:
    shutil.rmtree(next(copy.glob("*Decoder*")))
    served, reasons = servable_ensembles(copy)
    assert served == ["cosmos_base_fast", "cosmos_video2world_fast"]
    assert "no diffusion decoder" in reasons["cosmos_base"]


def test_without_the_base_model_video2world_remains(copy: Path) -> None:
    shutil.rmtree(copy / "Cosmos-Predict1-tiny")
    served, _ = servable_ensembles(copy)
    assert served == ["cosmos_video2world", "cosmos_video2world_fast"]
    assert list(autoregressive_models(CheckpointFolder(copy))) == [Kind.VIDEO2WORLD]


def drop_a_tensor(model: Path) -> None:
    tensors = torch.load(model / "model.pt", weights_only=True)
    tensors.pop(next(iter(tensors)))
    torch.save(tensors, model / "model.pt")


def test_a_damaged_model_is_named_and_the_other_served(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is called servable starts, and what does not start is not passed over in silence."""
    drop_a_tensor(copy / "Cosmos-Predict1-tiny")
    served, reasons = servable_ensembles(copy)
    assert served == ["cosmos_video2world", "cosmos_video2world_fast"]
    assert "1 missing" in reasons["cosmos_base"]
    assert list(autoregressive_models(CheckpointFolder(copy))) == [Kind.VIDEO2WORLD]
    assert "the base model is left out: 1 missing" in caplog.text


def test_with_no_whole_model_nothing_starts(copy: Path) -> None:
    shutil.rmtree(copy / "Cosmos-Predict1-tiny-Video2World")
    drop_a_tensor(copy / "Cosmos-Predict1-tiny")
    assert servable_ensembles(copy)[0] == []
    with pytest.raises(CheckpointError, match="damaged"):
        autoregressive_models(CheckpointFolder(copy))


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_cut_text_tokenizer_is_found_before_the_server_starts(copy: Path, name: str) -> None:
    path = next(copy.rglob("tokenizer.json")).parent / name
    path.write_text(path.read_text()[:20])
    served, reasons = servable_ensembles(copy)
    assert served == ["cosmos_base", "cosmos_base_fast"]
    assert f"{name} is not JSON" in reasons["cosmos_video2world"]


@pytest.mark.parametrize(("file", "key"), [("aux_vars.pt", "context"), ("mean_std.pt", 0)])
def test_small_tensors_that_are_not_finite_are_found(copy: Path, file: str, key: str | int) -> None:
    path = next(copy.rglob(file))
    content = torch.load(path, weights_only=True)
    content[key].view(-1)[3] = torch.nan
    torch.save(content, path)
    served, reasons = servable_ensembles(copy)
    assert served == ["cosmos_base_fast", "cosmos_video2world_fast"]
    assert "not finite" in reasons["cosmos_base"]


def test_an_empty_folder_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cosmos-triton download"):
        autoregressive_models(CheckpointFolder(tmp_path))


def test_of_several_models_one_is_named(tiny: Path, copy: Path) -> None:
    other = "Cosmos-Predict1-tuned"
    shutil.copytree(tiny / "Cosmos-Predict1-tiny", copy / other)
    with pytest.raises(CheckpointError, match="more than one autoregressive base model"):
        autoregressive_models(CheckpointFolder(copy))
    named = autoregressive_models(CheckpointFolder(copy), {Kind.BASE: other})
    assert named[Kind.BASE].directory == copy / other
    assert chosen_models(CheckpointFolder(copy), [other, "tiny-video2world"]) == {
        Kind.BASE: other,
        Kind.VIDEO2WORLD: "tiny-video2world",
    }
    with pytest.raises(ConfigurationError, match="are of one kind"):
        chosen_models(CheckpointFolder(copy), [other, "Cosmos-Predict1-tiny"])
