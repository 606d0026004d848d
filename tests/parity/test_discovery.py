"""Finding parity files, and that a check can fail."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cosmos_triton.errors import CheckpointError
from support.autoregressive_checks import check_model
from support.diffusion_checks import check_network, check_pipeline, check_windows
from support.parity_checks import CHECKS, check_file
from support.parity_files import INFORMATIONAL, KINDS, ContentMissing, ParityFile, discover, kind_of
from support.preprocess_checks import check_preprocess
from support.tokenizer_checks import check_continuous_tokenizer, check_discrete_tokenizer


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


def copied(
    committed: Path, directory: Path, stem: str, name: str, keep: Callable[[str], str | None]
) -> ParityFile:
    """The committed file `stem` as `name`, its tensors renamed by `keep`, or dropped where that is None."""
    tensors = load_file(committed / f"{stem}.safetensors")
    kept = {new: tensor for old, tensor in tensors.items() if (new := keep(old)) is not None}
    save_file(kept, directory / f"{name}.safetensors")
    if (committed / f"{stem}.json").is_file():
        shutil.copy(committed / f"{stem}.json", directory / f"{name}.json")
    return next(file for file in discover(directory) if file.path.name == name)


@pytest.mark.parametrize(
    ("stem", "add", "strip"),
    [
        ("ar_v2w_5b_like", "", "model."),
        ("dd_token_embedder", "model.", ""),
        ("dv_codebook", "model.", ""),
        ("cv_tokenizer", "model.", ""),
    ],
)
def test_weights_agree_with_and_without_prefix(
    committed: Path, tmp_path: Path, stem: str, add: str, strip: str
) -> None:
    shutil.copy(committed / "dd_dit.safetensors", tmp_path)  # the token embedding's network
    file = copied(
        committed,
        tmp_path,
        stem,
        "renamed",
        lambda name: name if name.startswith("io.") else add + name.removeprefix(strip),
    )
    CHECKS[file.kind or ""](file)


@pytest.mark.parametrize(
    ("stem", "dropped", "missing"),
    [
        ("ar_base_4b_like", "io.prefill_logits", "renamed.safetensors lacks io.prefill_logits"),
        ("ar_base_4b_like", "io.tf_tokens", "renamed.safetensors lacks io.tf_tokens"),
        ("ar_base_4b_like", "io.greedy_", "holds no greedy run"),
        ("ar_base_4b_like", "model.", "36 missing"),
        ("ar_base_4b_like", "model.norm.weight", "1 missing: norm.weight"),
        ("cv_tokenizer", "mean_std.0", "renamed.safetensors lacks mean_std.0"),
        ("cv_tokenizer", "io.a.video", "io.a lacks video"),
        ("cv_tokenizer", "io.", "holds no case"),
        (
            "dv_tokenizer",
            "quant_conv.",
            "renamed encoder does not fit the network: 2 missing: quant_conv.weight",
        ),
        ("dv_tokenizer", "io.c.video", "io.c lacks video"),
        ("dd_dit", "net.x_embedder.", "renamed.safetensors lacks net.x_embedder.proj.1.weight"),
        ("dd_dit", "net.", "renamed.safetensors lacks net."),
        ("dd_pipeline", "io.t12.chunk0.noise_unit", "io.t12 lacks chunk0.noise_unit"),
        ("dd_chunking", "io.blend2.in", "renamed.safetensors lacks io.blend2.in"),
        ("preprocess", "io.a.in_u8", "renamed.safetensors lacks io.a.in_u8_lastframe"),
        ("preprocess", "io.", "holds no frames"),
    ],
)
def test_missing_content_of_a_renamed_file_is_named(
    committed: Path, tmp_path: Path, stem: str, dropped: str, missing: str
) -> None:
    shutil.copy(committed / "dd_token_embedder.safetensors", tmp_path)
    file = copied(
        committed, tmp_path, stem, "renamed", lambda name: None if name.startswith(dropped) else name
    )
    with pytest.raises((AssertionError, CheckpointError)) as caught:
        check_file(file)
    assert missing in str(caught.value)


@pytest.mark.parametrize(
    ("stem", "check", "key"),
    [
        ("ar_base_4b_like", check_model, "model"),
        ("cv_tokenizer", check_continuous_tokenizer, "config"),
        ("dv_tokenizer", check_discrete_tokenizer, "config"),
        ("preprocess", check_preprocess, "cases"),
        ("dd_pipeline", check_pipeline, "cases"),
    ],
)
def test_a_missing_document_is_named(
    committed: Path, tmp_path: Path, stem: str, check: Callable[[ParityFile], None], key: str
) -> None:
    for companion in ("cv_tokenizer", "dd_dit", "dd_token_embedder"):
        shutil.copy(committed / f"{companion}.safetensors", tmp_path)
        shutil.copy(committed / f"{companion}.json", tmp_path)
    shutil.copy(committed / f"{stem}.safetensors", tmp_path / "renamed.safetensors")
    file = next(file for file in discover(tmp_path) if file.path.name == "renamed")
    assert file.kind == kind_of({}, file.tensors, stem)
    with pytest.raises(ContentMissing, match=rf"renamed.json \(there is no such file\) lacks {key}"):
        check(file)


def test_a_missing_key_of_the_document_is_named(committed: Path, tmp_path: Path) -> None:
    file = copied(committed, tmp_path, "ar_base_4b_like", "ar", lambda name: name)
    model = {key: value for key, value in file.meta["model"].items() if key != "rope_theta"}
    with pytest.raises(ContentMissing, match=r"^ar.json: model lacks rope_theta$"):
        check_model(replace(file, meta=file.meta | {"model": model}))


def test_half_precision_is_informational_by_name_and_without_weights(committed: Path) -> None:
    for stem in ("ar_base_4b_like", "dd_dit", "dd_chunking"):
        halves = {
            name: tensor.bfloat16() if tensor.is_floating_point() else tensor
            for name, tensor in load_file(committed / f"{stem}.safetensors").items()
        }
        assert kind_of({}, halves, f"{stem}_bf16") == next(k for k in KINDS if stem.startswith(k))
    outputs = {name: tensor for name, tensor in halves.items() if name.startswith("io.")}
    assert kind_of({}, outputs, "dd_bf16") == "dd_bf16"
    assert kind_of({}, outputs | {"net.final_layer.linear.weight": torch.ones(1)}, "dd_bf16") == "dd_dit"


@pytest.mark.parametrize("name", ["video", "arrow"])
def test_numbers_of_an_unknown_kind_fail(tmp_path: Path, name: str) -> None:
    save_file({"io.answer": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    (file,) = discover(tmp_path)
    with pytest.raises(pytest.fail.Exception, match=f"{name} holds numbers to check"):
        check_file(file)


def test_a_document_alone_keeps_its_kind_and_fails(committed: Path, tmp_path: Path) -> None:
    stems = ("ar_base_4b_like", "cv_tokenizer", "dv_tokenizer", "dd_dit", "dd_pipeline", "preprocess")
    for place, stem in enumerate(stems):
        shutil.copy(committed / f"{stem}.json", tmp_path / f"renamed{place}.json")
    for stem, file in zip(stems, discover(tmp_path), strict=True):
        assert stem.startswith(file.kind or "none")
        with pytest.raises((AssertionError, CheckpointError), match=file.path.name):
            check_file(file)


def test_a_document_that_is_no_object_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "ar_list.json").write_text(json.dumps([1]))
    (file,) = discover(tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"ar_list.json holds no JSON object"):
        check_file(file)
