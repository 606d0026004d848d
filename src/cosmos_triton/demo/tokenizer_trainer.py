"""A small T5 tokenizer of our own, for folders of random weights."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2, as in the published tokenizer
_EXTRA_IDS = 100
_VOCABULARY = 1000  # at most; the text below yields fewer pieces
_PRINTABLE = [chr(code) for code in range(ord("!"), ord("~") + 1)]

_SUBJECTS = (
    "a robot arm",
    "a warehouse robot",
    "the camera",
    "a small drone",
    "an autonomous car",
    "a humanoid robot",
    "a gripper",
    "a forklift",
    "a person",
    "the vehicle",
)
_ACTIONS = (
    "picks up",
    "moves past",
    "places",
    "approaches",
    "rotates",
    "inspects",
    "pushes",
    "follows",
    "turns towards",
    "slowly lifts",
)
_OBJECTS = (
    "a red cube",
    "a cardboard box",
    "the conveyor belt",
    "a glass bottle",
    "the wooden table",
    "a metal gear",
    "the open door",
    "a blue cup",
    "another car",
    "a stack of pallets",
)
_PLACES = (
    "in a bright factory",
    "on a rainy street",
    "in a kitchen",
    "at night",
    "under warm light",
    "in a snowy field",
    "beside a window",
    "on the assembly line",
    "at a crossing",
    "while the lights flicker",
)


def write_text_tokenizer(directory: Path, max_tokens: int) -> None:
    """Trains a unigram model on sentences about robots and writes it as `transformers` expects it."""
    tokenizer = Tokenizer(models.Unigram(_trained_pieces(), unk_id=2))
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    tokenizer.add_special_tokens([f"<extra_id_{index}>" for index in range(_EXTRA_IDS)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": max_tokens,
        "extra_ids": _EXTRA_IDS,
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _trained_pieces() -> list[tuple[str, float]]:
    """Pieces and their log-probabilities, in an order and precision that do not vary between runs."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = _words()
    special = [PAD, END, UNKNOWN]
    trainer = trainers.UnigramTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=special,
        unk_token=UNKNOWN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    learned = [(piece, round(score, 3)) for piece, score in vocabulary if piece not in special]
    rarest = min(score for _, score in learned) - 1
    unseen = [(sign, rarest) for sign in sorted(set(_PRINTABLE) - {piece for piece, _ in learned})]
    learned.sort(key=lambda entry: (-entry[1], entry[0]))
    return [(piece, 0.0) for piece in special] + learned + unseen


def _words() -> pre_tokenizers.Sequence:
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])


def _sentences() -> Iterator[str]:
    for words in itertools.product(_SUBJECTS, _ACTIONS, _OBJECTS, _PLACES):
        yield " ".join(words) + "."
