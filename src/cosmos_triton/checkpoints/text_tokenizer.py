"""T5's tokenizer: a prompt becomes token ids."""

from collections.abc import Callable
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer


def load_text_tokenizer(directory: Path, max_tokens: int) -> Callable[[str], list[int]]:
    """How a prompt becomes ids: at most `max_tokens`, `</s>` the last of them.

    `tokenizer.json` is taken as it stands, as the reference's transformers 4 took it: transformers 5 makes
    T5's tokenizer anew from the vocabulary, and of the file's normalisers keeps SentencePiece's table alone.

    Args:
        directory: holds `tokenizer.json` or `spiece.model`.
        max_tokens: at least 1.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        pieces = SentencePieceProcessor(model_file=str(directory / "spiece.model"))
        return lambda prompt: [*pieces.encode(prompt)[: max_tokens - 1], pieces.eos_id()]
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return lambda prompt: tokenizer.encode(prompt).ids
