"""Finding parity files, and that a check can fail."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from diffusion_checks import check_network, check_pipeline, check_windows
from files import INFORMATIONAL, KINDS, discover, kind_of
from safetensors.torch import load_file, save_file
from tokenizer_checks import check_discrete_tokenizer


@pytest.fixture(scope="module")
def committed(repository: Path) -> Path:
    return repository / "tests" / "data" / "parity"


def test_every_kind_is_committed(committed: Path) -> None:
    assert {file.kind for file in discover(committed)} == set(KINDS) - set(INFORMATIONAL)


def test_the_kind_follows_from_the_content_alone(committed: Path) -> None:
    for file in discover(committed):
        assert kind_of(file.meta, file.tensors, "renamed") == file.kind


def test_an_unknown_kind_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"a": 1}')
    assert [file.kind for file in discover(tmp_path)] == [None]


def test_a_damaged_file_keeps_its_kind_and_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "dv_tokenizer_large.safetensors").write_bytes(b"not tensors")
    (file,) = discover(tmp_path)
    assert file.kind == "dv_tokenizer"
    assert file.problem


def test_a_missing_companion_is_named(tmp_path: Path, committed: Path) -> None:
    for name in ("dd_dit.json", "dd_dit.safetensors", "dd_pipeline.json", "dd_pipeline.safetensors"):
        shutil.copy(committed / name, tmp_path)
    files = {file.kind: file for file in discover(tmp_path)}
    with pytest.raises(AssertionError, match=r"needs a token embedding \(dd_token_embedder\) of width 8"):
        check_network(files["dd_dit"])
    with pytest.raises(AssertionError, match=r"needs a tokenizer \(cv_tokenizer, 16 channels\)"):
        check_pipeline(files["dd_pipeline"])


def test_a_companion_of_another_name_is_found(tmp_path: Path, committed: Path) -> None:
    shutil.copy(committed / "dd_dit.safetensors", tmp_path / "network.safetensors")
    shutil.copy(committed / "dd_dit.json", tmp_path / "network.json")
    table = load_file(committed / "dd_token_embedder.safetensors")
    save_file(table, tmp_path / "embedding.safetensors")
    check_network(next(file for file in discover(tmp_path) if file.kind == "dd_dit"))


@pytest.mark.parametrize(
    ("kind", "tensor", "check"),
    [
        ("dv_tokenizer", "io.b.indices", check_discrete_tokenizer),
        ("dv_tokenizer", "io.rand57.recon", check_discrete_tokenizer),
        ("dd_dit", "io.fwd_b2.padding_mask", check_network),
        ("dd_dit", "io.gen.step2.prev", check_network),
        ("dd_pipeline", "io.t5.video01", check_pipeline),
        ("dd_chunking", "io.split.tokens12.chunk1", check_windows),
    ],
)
def test_a_changed_number_fails(committed: Path, kind: str, tensor: str, check) -> None:
    file = next(file for file in discover(committed) if file.kind == kind)
    changed = file.tensors[tensor].clone()
    changed.view(-1)[0] += 1
    with pytest.raises(AssertionError):
        check(replace(file, tensors=file.tensors | {tensor: changed}))


def test_an_empty_file_of_a_known_kind_fails(committed: Path) -> None:
    file = next(file for file in discover(committed) if file.kind == "dd_dit")
    weights = {name: tensor for name, tensor in file.tensors.items() if not name.startswith("io.")}
    with pytest.raises(AssertionError, match="neither a forward nor a sampler run"):
        check_network(replace(file, tensors=weights))
