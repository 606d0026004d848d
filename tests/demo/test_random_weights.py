"""The random folder: complete, seeded, and usable by the published tools."""

import filecmp
from pathlib import Path

import pytest
import torch

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.checkpoints.releases import PREDICT1
from cosmos_triton.demo import random_weights as random
from cosmos_triton.demo.random_weights import SIZES, init_random
from cosmos_triton.errors import CheckpointError


def _files(directory: Path) -> list[Path]:
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def test_a_seed_decides_every_byte(tiny: Path, tmp_path: Path) -> None:
    init_random("tiny", tmp_path)
    assert _files(tiny) == _files(tmp_path)
    assert all(filecmp.cmp(tiny / name, tmp_path / name, shallow=False) for name in _files(tiny))
    init_random("tiny", tmp_path, seed=1, only=["autoregressive"])
    name = Path("Cosmos-Predict1-tiny/model.pt")
    assert not filecmp.cmp(tiny / name, tmp_path / name, shallow=False)


def test_the_published_layout(tiny: Path) -> None:
    archives = ["autoencoder.jit", "config.json", "decoder.jit", "encoder.jit"]
    assert sorted(path.name for path in (tiny / PREDICT1.discrete_tokenizer).iterdir()) == archives
    continuous = sorted(path.name for path in (tiny / PREDICT1.continuous_tokenizer).iterdir())
    assert continuous == [*archives, "mean_std.pt"]
    assert sum((tiny / name).stat().st_size for name in _files(tiny)) < 150e6


def test_torch_reads_what_was_streamed(tiny: Path) -> None:
    path = tiny / "Cosmos-Predict1-tiny" / "model.pt"
    tensors = torch.load(path, weights_only=True)
    assert all(name.startswith("model.") and t.dtype == torch.bfloat16 for name, t in tensors.items())
    mapped = CheckpointFolder(tiny).autoregressive().tensors
    assert all(torch.equal(tensors[f"model.{name}"], tensor) for name, tensor in mapped.items())
    linear = tensors["model.layers.0.attention.wq.weight"].float()
    assert linear.std() == pytest.approx(linear.shape[1] ** -0.5, rel=0.05)
    assert torch.equal(tensors["model.norm.weight"].float(), torch.ones(64))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_archives_are_real_torchscript(tiny: Path) -> None:
    for part, buffers in (("encoder", 6), ("decoder", 5), ("autoencoder", 8)):
        path = tiny / PREDICT1.discrete_tokenizer / f"{part}.jit"
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
        assert sum("quantizer" in name or "patcher" in name for name in state) == buffers
    whole = CheckpointFolder(tiny).discrete_tokenizer().tensors
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())


def test_transformers_loads_the_text_encoder_and_its_tokenizer(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer, T5EncoderModel

    directory = CheckpointFolder(tiny).text_tokenizer()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert len(tokenizer) <= 32100
    sentence = "a robot arm lifts 3 cups!"
    ids = tokenizer(sentence, padding="max_length", max_length=512, truncation=True)["input_ids"]
    assert len(ids) == 512
    assert ids.index(1) == ids.index(0) - 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == sentence
    network = T5EncoderModel.from_pretrained(directory)
    hidden = network(input_ids=torch.tensor([ids[: ids.index(0)]])).last_hidden_state
    assert 0.3 < hidden.std() < 3


def test_a_large_tensor_is_cut_from_one_block_and_no_two_rows_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "_LARGE", 1 << 16)
    monkeypatch.setattr(random, "_BLOCK", 16381)
    random._block.cache_clear()
    try:
        make = random._maker(0, tmp_path, lambda name, shape: (2.0, 0.5))
        tensor = make("wide", (2048, 64))
        assert torch.equal(tensor, make("wide", (2048, 64)))
        assert not torch.equal(tensor, make("other", (2048, 64)))
    finally:
        random._block.cache_clear()
    assert len(tensor.unique(dim=0)) == 2048
    assert tensor.float().mean() == pytest.approx(2.0, abs=0.02)
    assert tensor.float().std() == pytest.approx(0.5, rel=0.02)
    neighbours = torch.corrcoef(tensor.float())
    assert (neighbours - torch.eye(2048)).abs().max() < 0.8


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_what_its_models_need(size: str) -> None:
    parts = [part.directory for part in random._parts(SIZES[size], ("autoregressive", "text-encoder"))]
    prompts = any(AUTOREGRESSIVE[model].is_video2world for model in SIZES[size].autoregressive)
    assert (PREDICT1.text_encoder in parts) is prompts


def test_it_is_said_before_anything_is_written_that_the_disk_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = random.shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(random.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"23\.4 GB are to be written"):
        init_random("4B", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "Cosmos-Predict1-tiny").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        init_random("tiny", tmp_path)


def test_an_interrupted_file_is_not_left_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with random.whole_file(tmp_path / "model.pt") as path:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
