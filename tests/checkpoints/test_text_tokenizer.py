"""Prompts become the ids that SentencePiece makes of them, whichever file the tokenizer is read from."""

from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from cosmos_triton.checkpoints.text_tokenizer import load_text_tokenizer
from cosmos_triton.demo.tokenizer_trainer import END, PAD, UNKNOWN, write_text_tokenizer

MAX_TOKENS = 64
WORDS = ("a", "robot", "arm", "lifts", "the", "red", "cup", "in", "an", "office", "field", "café", "TM", "1")
PROMPTS = (
    "a robot arm lifts the red cup",
    "ａ ｒｏｂｏｔ　ａｒｍ",  # full width, with the ideographic space
    "the \ufb01eld and the o\ufb03ce",  # ligatures
    "a\u00a0robot\u2003arm\u200b",  # spaces of other kinds, one without a width
    "robot\u2122 \u2460 cafe\u0301",  # compatibility signs, an accent apart from its letter
    "  two  spaces\tand a line\n",
    "",
)


@pytest.fixture(scope="module")
def sentencepiece_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a `spiece.model` like T5's: unigram, normalised by nmt_nfkc."""
    directory = tmp_path_factory.mktemp("spiece")
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]),
        model_prefix=str(directory / "spiece"),
        normalization_rule_name="nmt_nfkc",
        vocab_size=50,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=PAD,
        eos_piece=END,
        unk_piece=UNKNOWN,
        minloglevel=2,
    )
    return directory


@pytest.fixture(scope="module")
def json_only(sentencepiece_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the same tokenizer as a `tokenizer.json` of the published form."""
    pieces = SentencePieceProcessor(model_file=str(sentencepiece_only / "spiece.model"))
    scores = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2))
    tokenizer.normalizer = normalizers.Precompiled(_character_table(sentencepiece_only / "spiece.model"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    directory = tmp_path_factory.mktemp("json")
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def _character_table(model: Path) -> bytes:
    """ModelProto.normalizer_spec.precompiled_charsmap."""
    return _field(_field(model.read_bytes(), 3), 2)


def _field(message: bytes, number: int) -> bytes:
    (content,) = (f.data for f in UnknownFieldSet(Empty.FromString(message)) if f.field_number == number)
    return bytes(content)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("directory", ["sentencepiece_only", "json_only"])
def test_ids_are_those_of_sentencepiece(
    sentencepiece_only: Path, directory: str, prompt: str, request: pytest.FixtureRequest
) -> None:
    reference = SentencePieceProcessor(model_file=str(sentencepiece_only / "spiece.model"))
    ids_of = load_text_tokenizer(request.getfixturevalue(directory), MAX_TOKENS)
    assert ids_of(prompt) == [*reference.encode(prompt), 1]


def test_any_normaliser_of_the_file_is_kept(tmp_path: Path) -> None:
    write_text_tokenizer(tmp_path, MAX_TOKENS)
    plain = load_text_tokenizer(tmp_path, MAX_TOKENS)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    normalising = load_text_tokenizer(tmp_path, MAX_TOKENS)
    assert normalising("ａ ｒｏｂｏｔ") == plain("a robot") != plain("ａ ｒｏｂｏｔ")


@pytest.mark.parametrize("directory", ["sentencepiece_only", "json_only"])
def test_a_long_prompt_is_cut_and_still_ends(directory: str, request: pytest.FixtureRequest) -> None:
    ids = load_text_tokenizer(request.getfixturevalue(directory), 8)("a robot " * 100)
    assert len(ids) == 8
    assert ids.index(1) == 7
