"""Folders whole, renamed, mixed and damaged."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cosmos_triton.architectures import AUTOREGRESSIVE, Kind
from cosmos_triton.checkpoints import published
from cosmos_triton.checkpoints.files import read_tensors
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.checkpoints.releases import COSMOS1, PREDICT1
from cosmos_triton.errors import CheckpointError

Copy = Callable[..., Path]

BASE = "Cosmos-Predict1-tiny"
VIDEO2WORLD = "Cosmos-Predict1-tiny-Video2World"
DISCRETE, CONTINUOUS = PREDICT1.discrete_tokenizer, PREDICT1.continuous_tokenizer
DECODER = PREDICT1.diffusion_decoder


def test_every_component_has_exactly_its_tensors(tiny: Path) -> None:
    folder = CheckpointFolder(tiny)
    found = [
        folder.autoregressive(),
        folder.autoregressive(kind=Kind.VIDEO2WORLD),
        folder.discrete_tokenizer(),
        folder.continuous_tokenizer(),
        folder.diffusion_decoder(),
        folder.text_encoder(),
    ]
    for component in found:
        shapes = {name: tuple(tensor.shape) for name, tensor in component.tensors.items()}
        assert shapes == component.family.shapes(component.architecture)
    assert [component.architecture.name for component in found[:2]] == ["tiny", "tiny-video2world"]
    assert folder.mean_std()[0].shape == (16, 16)
    assert folder.default_text().shape == (512, 32)
    assert (folder.text_tokenizer() / "tokenizer.json").is_file()
    assert folder.unreadable == ()


def test_names_of_directories_do_not_matter(copied: Copy) -> None:
    folder = copied(BASE, DISCRETE)
    (folder / BASE).rename(folder / "Cosmos-Predict1-12B")
    (folder / DISCRETE).rename(folder / "Cosmos-Tokenize1-CV8x8x8-720p")
    found = CheckpointFolder(folder)
    assert found.autoregressive().architecture.name == "tiny"
    assert found.autoregressive("Cosmos-Predict1-12B").architecture.name == "tiny"
    assert found.discrete_tokenizer().architecture.name == "tiny-DV8x16x16"
    with pytest.raises(CheckpointError, match="holds no autoregressive model 12B"):
        found.autoregressive("12B")


def test_release_1_0_and_the_hubs_cache(copied: Copy) -> None:
    folder = copied(BASE, DISCRETE)
    (folder / DISCRETE).rename(folder / COSMOS1.discrete_tokenizer)
    (folder / COSMOS1.discrete_tokenizer / "autoencoder.jit").unlink()
    cached = folder / "hub" / "models--nvidia--Cosmos-1.0-Autoregressive-4B"
    blob = cached / "blobs" / "0123"
    blob.parent.mkdir(parents=True)
    (folder / BASE / "model.pt").rename(blob)
    snapshot = cached / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.pt").symlink_to(blob)
    shutil.rmtree(folder / BASE)

    found = CheckpointFolder(folder)
    assert [file.name for file in found.discrete_tokenizer().files] == ["decoder.jit", "encoder.jit"]
    assert found.autoregressive().directory == snapshot
    assert found.release is COSMOS1


def test_the_folder_of_one_network(tiny: Path) -> None:
    assert CheckpointFolder(tiny / BASE).autoregressive().architecture.name == "tiny"


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("container", ["zip", "old", "safetensors"])
def test_every_form_of_model_pt(
    tiny: Path, tmp_path: Path, prefix: str, wrapped: bool, container: str
) -> None:
    arch = AUTOREGRESSIVE["tiny"]
    named = {
        f"{prefix}{name.removeprefix('model.')}": tensor.clone()
        for name, tensor in read_tensors(tiny / BASE / "model.pt").items()
    }
    if container == "safetensors":
        save_file(named, tmp_path / "model.safetensors")
    else:
        content = {"model": named} if wrapped else named
        torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=container == "zip")
    component = CheckpointFolder(tmp_path).autoregressive()
    assert component.architecture is arch
    expected = CheckpointFolder(tiny).autoregressive().tensors
    assert all(torch.equal(component.tensors[name], tensor) for name, tensor in expected.items())


def test_shards_are_joined_and_a_missing_one_is_listed(tiny: Path, tmp_path: Path) -> None:
    tensors = {name: t.clone() for name, t in CheckpointFolder(tiny).autoregressive().tensors.items()}
    first = {name: tensor for name, tensor in tensors.items() if name.startswith("layers.0")}
    rest = {name: tensor for name, tensor in tensors.items() if name not in first}
    save_file(first, tmp_path / "model-00001-of-00002.safetensors")
    save_file(rest, tmp_path / "model-00002-of-00002.safetensors")
    assert len(CheckpointFolder(tmp_path).autoregressive().files) == 2
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"is damaged: 11 missing: layers\.0\.attention\.wq\.weight"):
        CheckpointFolder(tmp_path).autoregressive()


def _change(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in read_tensors(path).items()}
    change(tensors)
    torch.save(tensors, path)


def test_missing_unexpected_and_wrongly_shaped_names_are_all_in_one_error(copied: Copy) -> None:
    folder = copied(BASE)

    def damage(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.ffn_norm.weight"]
        tensors["model.layers.7.attention.wq.weight"] = torch.ones(2, 2)
        tensors["model.output.weight"] = torch.ones(3, 64)
        tensors["model.layers.0.ffn_norm.weight"] = torch.ones(64, dtype=torch.int32)

    _change(folder / BASE / "model.pt", damage)
    with pytest.raises(CheckpointError) as caught:
        CheckpointFolder(folder).autoregressive()
    message = str(caught.value)
    assert "2 missing: layers.1.ffn_norm.weight, norm.weight" in message
    assert "1 unexpected: layers.7.attention.wq.weight" in message
    assert "1 wrongly shaped: output.weight [3, 64] instead of [64000, 64]" in message
    assert "1 not floating point: layers.0.ffn_norm.weight" in message


def test_a_tensor_given_twice_is_named(copied: Copy) -> None:
    folder = copied(BASE)
    _change(folder / BASE / "model.pt", lambda tensors: tensors.update({"norm.weight": torch.ones(64)}))
    with pytest.raises(CheckpointError, match=r"1 unexpected: norm.weight \(given twice\)"):
        CheckpointFolder(folder).autoregressive()


def test_a_diffusion_decoder_that_lacks_a_tensor(copied: Copy) -> None:
    folder = copied(DECODER)
    name = "net.blocks.block1.blocks.1.block.attn.to_q.1.weight"
    _change(folder / DECODER / "model.pt", lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"1 missing: {name}"):
        CheckpointFolder(folder).diffusion_decoder()


def test_a_whole_archive_stands_in_for_damaged_halves_and_the_other_way_round(copied: Copy) -> None:
    folder = copied(DISCRETE)
    (folder / DISCRETE / "encoder.jit").write_bytes(b"")
    assert [f.name for f in CheckpointFolder(folder).discrete_tokenizer().files] == ["autoencoder.jit"]


def test_a_damaged_whole_archive_beside_whole_halves(copied: Copy) -> None:
    folder = copied(DISCRETE)
    path = folder / DISCRETE / "autoencoder.jit"
    path.write_bytes(path.read_bytes()[:100_000])
    found = CheckpointFolder(folder)
    assert [file.name for file in found.discrete_tokenizer().files] == ["decoder.jit", "encoder.jit"]
    assert [file.path.name for file in found.unreadable] == ["autoencoder.jit"]


def test_an_unreadable_half_is_named_before_what_it_lacks(copied: Copy) -> None:
    folder = copied(CONTINUOUS)
    (folder / CONTINUOUS / "autoencoder.jit").unlink()
    (folder / CONTINUOUS / "decoder.jit").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"is damaged: .*decoder.jit is a web page.*; 172 missing"):
        CheckpointFolder(folder).continuous_tokenizer()


def test_what_is_missing_says_which_command_fetches_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    fetch = f"`cosmos-triton download --models %s --checkpoint-dir {tmp_path}` fetches it"
    for accessor, models in (
        (folder.autoregressive, "4B"),
        (lambda: folder.autoregressive(kind=Kind.VIDEO2WORLD), "5B"),
        (lambda: folder.autoregressive("13B"), "13B"),
        (folder.discrete_tokenizer, "4B"),
        (folder.continuous_tokenizer, "4B"),
        (folder.diffusion_decoder, "4B"),
        (folder.text_encoder, "5B"),
        (folder.mean_std, "4B"),
        (folder.default_text, "4B"),
    ):
        with pytest.raises(CheckpointError) as caught:
            accessor()
        assert fetch % models in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        CheckpointFolder(tmp_path / "x")


def test_two_models_of_a_kind_want_a_name(copied: Copy) -> None:
    folder = copied(BASE)
    shutil.copytree(folder / BASE, folder / "finetuned")
    (folder / BASE).rename(folder / "first")
    with pytest.raises(CheckpointError, match=r"more than one autoregressive base model: .*--model"):
        CheckpointFolder(folder).autoregressive()
    assert CheckpointFolder(folder).autoregressive("finetuned").directory == folder / "finetuned"


def test_of_both_releases_predict1_is_taken(copied: Copy) -> None:
    folder = copied(BASE, DISCRETE)
    shutil.copytree(folder / DISCRETE, folder / COSMOS1.discrete_tokenizer)
    assert CheckpointFolder(folder).discrete_tokenizer().directory.name == DISCRETE
    (folder / BASE).rename(folder / "Cosmos-1.0-Autoregressive-4B")
    assert CheckpointFolder(folder).discrete_tokenizer().directory.name == COSMOS1.discrete_tokenizer


def test_a_whole_model_is_taken_beside_a_damaged_one(copied: Copy) -> None:
    folder = copied(BASE)
    shutil.copytree(folder / BASE, folder / "damaged")
    _change(folder / "damaged" / "model.pt", lambda tensors: tensors.pop("model.norm.weight"))
    assert CheckpointFolder(folder).autoregressive().directory.name == BASE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.ones(3), "does not hold a mean and a deviation"),
        ((torch.ones(256),), "does not hold a mean and a deviation"),
        ((torch.ones(250), torch.ones(250)), "does not hold a mean and a deviation"),
        ((torch.ones(256), torch.ones(128)), "holds 256 means but 128 deviations"),
        ((torch.ones(256), torch.zeros(256)), "deviation that is not above zero"),
    ],
)
def test_mean_std_of_another_shape(copied: Copy, content: object, reason: str) -> None:
    folder = copied(CONTINUOUS)
    torch.save(content, folder / CONTINUOUS / "mean_std.pt")
    with pytest.raises(CheckpointError, match=reason):
        CheckpointFolder(folder).mean_std()


def test_mean_std_as_safetensors(copied: Copy) -> None:
    folder = copied(CONTINUOUS)
    (folder / CONTINUOUS / "mean_std.pt").unlink()
    values = {"std": torch.full((16, 8), 2.0), "mean": torch.ones(16, 8)}
    save_file(values, folder / CONTINUOUS / "mean_std.safetensors")
    mean, std = CheckpointFolder(folder).mean_std()
    assert (mean.shape, mean.max(), std.max()) == ((16, 8), 1, 2)


@pytest.mark.parametrize(
    "content", [{"context": torch.ones(1, 512, 31)}, {"other": torch.ones(1)}, [torch.ones(2)]]
)
def test_aux_vars_of_another_shape(copied: Copy, content: object) -> None:
    folder = copied(DECODER)
    torch.save(content, folder / DECODER / "aux_vars.pt")
    with pytest.raises(CheckpointError, match=r"as `context` instead of \[512, 32\]"):
        CheckpointFolder(folder).default_text()


def test_t5_without_its_tokenizer(copied: Copy) -> None:
    folder = copied("google-t5")
    (folder / "google-t5/t5-11b/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds neither tokenizer\.json nor spiece\.model"):
        CheckpointFolder(folder).text_tokenizer()


def test_t5_from_an_encoder_only_file(tiny: Path, tmp_path: Path) -> None:
    tensors = {name: t.clone() for name, t in CheckpointFolder(tiny).text_encoder().tensors.items()}
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    assert set(CheckpointFolder(tmp_path).text_encoder().tensors) == set(
        published.text_encoder_shapes(CheckpointFolder(tiny).text_encoder().architecture)
    )


def test_weights_of_other_networks_are_left_alone(copied: Copy) -> None:
    folder = copied(BASE)
    torch.save({"conv.weight": torch.ones(2), "fc.weight": torch.ones(2)}, folder / BASE / "face.pth")
    found = CheckpointFolder(folder)
    assert len(found.components) == 1
    assert found.autoregressive()


def test_links_that_loop_end(copied: Copy) -> None:
    folder = copied(BASE)
    os.symlink(folder, folder / BASE / "again")
    assert CheckpointFolder(folder).autoregressive()


def test_of_the_hubs_cache_the_snapshots_that_its_refs_name_are_read(
    copied: Callable[..., Path], tmp_path: Path
) -> None:
    name = "Cosmos-Tokenize1-DV8x16x16-720p"
    source, repository = copied(name) / name, tmp_path / "hub" / f"models--nvidia--{name}"
    for revision in ("0f" * 20, "6c" * 20):
        shutil.copytree(source, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("6c" * 20)
    folder = CheckpointFolder(tmp_path / "hub")
    assert folder.discrete_tokenizer().directory.name == "6c" * 20
    (repository / "refs" / "main").unlink()
    with pytest.raises(CheckpointError, match="more than one discrete tokenizer"):
        CheckpointFolder(tmp_path / "hub").discrete_tokenizer()
