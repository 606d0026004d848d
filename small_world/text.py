"""Prompts for Video2World: a tokenizer that knows the words of our sentences, and a T5 trained along."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn

from cosmos_triton.architectures import TextEncoderArchitecture
from cosmos_triton.networks import TextEncoder
from small_world import scenes
from small_world.scenes import BALL_COLOURS, CAR_COLOURS, LIGHTS

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2, as in T5
_WORDS = (
    "driving standing by at the road is straight bends left right car ahead brakes drives on a an comes "
    "towards us overtakes ball bounces breaks falls"
)
ROWS = 48  # more than any of our sentences takes


def vocabulary() -> list[str]:
    """Pieces in the order of their ids: the words of our sentences, then signs, for all other words."""
    words = [*_WORDS.split(), *LIGHTS, *CAR_COLOURS, *BALL_COLOURS]
    signs = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces = [f"▁{word}" for word in dict.fromkeys(words)]
    return [PAD, END, UNKNOWN, *pieces, "▁", *signs]


def build_tokenizer() -> Tokenizer:
    """A unigram tokenizer in T5's form. Case is ignored, and a comma or full stop is a word of its own."""
    known = vocabulary()
    scores = [0.0 if piece in (PAD, END, UNKNOWN) else -2.0 - 8.0 * (len(piece) == 1) for piece in known]
    tokenizer = Tokenizer(models.Unigram(list(zip(known, scores, strict=True)), unk_id=2))
    from tokenizers import normalizers

    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    return tokenizer


def write_tokenizer(directory: Path, max_tokens: int) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, as transformers expects T5's."""
    directory.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": max_tokens,
        "extra_ids": 0,
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def prompt_ids(chosen: scenes.Scenes) -> Tensor:
    """Ids of the scenes' sentences: [N, ROWS] int64, 0 after each one's end."""
    tokenizer = build_tokenizer()
    ids = torch.zeros(len(chosen), ROWS, dtype=torch.int64)
    for row, encoded in zip(ids, tokenizer.encode_batch(scenes.prompts(chosen)), strict=True):
        if len(encoded.ids) > ROWS:
            raise ValueError(f"a sentence of {len(encoded.ids)} tokens is longer than {ROWS}")
        row[: len(encoded.ids)] = torch.tensor(encoded.ids)
    return ids


def encode(encoder: TextEncoder, ids: Tensor) -> Tensor:
    """Text embeddings, zero past the prompt, of a batch: [B, rows] → [B, rows, C] float32."""
    mask = (ids != 0).long()
    hidden: Tensor = encoder.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden.float() * mask[..., None]


def build_encoder(architecture: TextEncoderArchitecture) -> TextEncoder:
    """A fresh encoder whose weights can be trained, scaled as T5 scales them."""
    encoder = TextEncoder(architecture)
    for name, parameter in encoder.named_parameters():
        nn.init.ones_(parameter) if "norm" in name else nn.init.normal_(
            parameter, std=1.0 if "embed_tokens" in name else parameter.shape[-1] ** -0.5
        )
    return encoder.requires_grad_(True)
