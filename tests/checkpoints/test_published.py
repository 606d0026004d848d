"""Names and shapes against those of the published networks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
)
from cosmos_triton.checkpoints import published
from cosmos_triton.checkpoints.published import parameters

PARITY = Path(__file__).parents[1] / "data" / "parity"


@pytest.mark.parametrize("published_name", ["4B", "5B-Video2World", "12B", "13B-Video2World"])
def test_every_name_and_shape_of_the_autoregressive_models(published_name: str) -> None:
    recorded = json.loads((PARITY / "ar_real_configs.json").read_text())[f"Cosmos-Predict1-{published_name}"]
    arch = AUTOREGRESSIVE[published_name.partition("-")[0]]
    names = dict(recorded["non_layer_shapes"])
    for layer in range(recorded["config"]["n_layers"]):
        names |= {name.format(i=layer): shape for name, shape in recorded["layer_shapes"].items()}
    shapes = published.autoregressive_shapes(arch)
    assert {f"model.{name}": list(shape) for name, shape in shapes.items()} == names
    assert len(shapes) == recorded["n_tensors"]
    assert parameters(shapes.values()) == recorded["total_params"]


def test_heads_narrower_than_the_model() -> None:
    shapes = published.autoregressive_shapes(AUTOREGRESSIVE["13B"])
    assert shapes["layers.39.attention.wq.weight"] == (4096, 5120)
    assert shapes["layers.39.attention.wo.weight"] == (5120, 4096)
    assert shapes["layers.0.cross_attention.wk.weight"] == (1024, 1024)
    assert shapes["tok_embeddings.weight"] == (64064, 5120)
    assert shapes["output.weight"] == (64000, 5120)


def test_counts_of_the_other_networks() -> None:
    discrete, continuous = DISCRETE_TOKENIZERS["DV8x16x16"], CONTINUOUS_TOKENIZERS["CV8x8x8"]
    assert parameters(published.tokenizer_shapes(discrete).values()) == 110_898_294
    assert parameters(published.tokenizer_shapes(continuous).values()) == 105_653_696
    decoder = published.diffusion_decoder_shapes(DIFFUSION_DECODERS["7B"])
    assert (len(decoder), parameters(decoder.values())) == (568, 7_237_257_216)  # 569 with pos_embedder.seq
    text = published.text_encoder_shapes(TEXT_ENCODERS["t5-11b"])
    assert parameters(text.values()) == 4_864_791_552


@pytest.mark.parametrize("kind", ["dv", "cv"])
@pytest.mark.parametrize("part", ["encoder", "decoder", "autoencoder"])
def test_every_name_and_shape_of_the_tokenizers_archives(kind: str, part: str) -> None:
    described = json.loads((PARITY / f"{kind}_tokenizer.json").read_text())
    recorded = {name: tuple(shape) for name, (_, shape) in described["jit_state_dict_keys"][part].items()}
    preset = DISCRETE_TOKENIZERS["DV8x16x16"] if kind == "dv" else CONTINUOUS_TOKENIZERS["CV8x8x8"]
    arch = replace(preset, channels=described["config"]["channels"])
    halves = {
        "encoder": published.tokenizer_encoder_shapes,
        "decoder": published.tokenizer_decoder_shapes,
        "autoencoder": published.tokenizer_shapes,
    }
    assert halves[part](arch) | published.tokenizer_buffers(arch, part) == recorded


def test_every_name_and_shape_of_the_diffusion_network() -> None:
    described = json.loads((PARITY / "dd_dit.json").read_text())
    with safe_open(PARITY / "dd_dit.safetensors", "pt") as file:
        names = [name for name in file.keys() if not name.startswith("io.")]  # noqa: SIM118, not a dict
        recorded = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    width = described["tiny_overrides"]["crossattn_emb_channels"]
    arch = replace(DIFFUSION_DECODERS["tiny"], text_dim=width)
    shapes = published.diffusion_decoder_shapes(arch) | published.diffusion_decoder_buffers(arch)
    shapes.pop("net.token_embedder.weight")  # lies in a file of its own
    assert shapes == recorded


def test_canonical_names() -> None:
    one = torch.ones(1)
    family = published.AUTOREGRESSIVE_FAMILY
    given = {"model.norm.weight": one, "output.weight": one, "model.layers.0.x._extra_state": one}
    assert set(family.canonical_tensors(given)) == {"norm.weight", "output.weight"}
    twice = family.canonical_tensors({"model.norm.weight": one, "norm.weight": one})
    assert set(twice) == {"norm.weight", "norm.weight (given twice)"}
    text = published.TEXT_ENCODER_FAMILY.canonical_tensors(
        {"encoder.embed_tokens.weight": one, "decoder.final_layer_norm.weight": one, "lm_head.weight": one}
    )
    assert set(text) == {"shared.weight"}


def test_attention_in_a_level_is_refused() -> None:
    with pytest.raises(ValueError, match="attention at"):
        published.tokenizer_shapes(replace(DISCRETE_TOKENIZERS["DV8x16x16"], attention_resolutions=(64,)))
