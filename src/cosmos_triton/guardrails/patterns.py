"""Word patterns: the small language of data/harmful.toml and data/allowed.toml.

A pattern is a sequence of words of the folded prompt, each a literal, a prefix (`stab*`),
alternatives (`a|b*`), a named set (`@person`), or `~` for up to three filler words.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cosmos_triton.guardrails.folding import fold

_WORD = re.compile(r"[^\W_]+")
_KEY = 2  # patterns are indexed by this many first letters
_ENDINGS = ("", "s", "es", "d", "ed", "er", "ers", "ing")  # of a prefix that is a word's stem

Sets = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Hit:
    """What was found: the category of the pattern and the words that match it."""

    category: str
    text: str


class PatternSet:
    """Patterns of several categories, looked up by the first letters of their first word."""

    def __init__(self, patterns: Iterable[tuple[str, str]], sets: Sets) -> None:
        """Compile (category, pattern) pairs."""
        self._index: dict[str, list[tuple[str, re.Pattern[str]]]] = defaultdict(list)
        for category, pattern in patterns:
            elements = pattern.split()
            compiled = re.compile(_compile(elements, sets))
            for key in {word[:_KEY] for word in _alternatives(elements[0], sets)}:
                self._index[key].append((category, compiled))

    def find(self, words: str) -> Hit | None:
        """The first pattern found in words joined by single spaces."""
        for match in _WORD.finditer(words):
            for category, pattern in self._index.get(match[0][:_KEY], ()):
                if found := pattern.match(words, match.start()):
                    return Hit(category, found[0])
        return None

    def without(self, words: str) -> str:
        """`words` with everything that matches taken out, a mark left in its place."""
        kept, position = [], 0
        for match in _WORD.finditer(words):
            if match.start() < position:
                continue
            ends = [
                found.end()
                for _, pattern in self._index.get(match[0][:_KEY], ())
                if (found := pattern.match(words, match.start()))
            ]
            if ends:
                kept += [words[position : match.start()], "."]
                position = max(ends)
        return "".join([*kept, words[position:]])


def words_of(text: str) -> str:
    """The words of a folded text, joined by single spaces."""
    return " ".join(_WORD.findall(text))


@dataclass(frozen=True)
class Rules:
    """The two data files, read."""

    harmful: PatternSet
    inside: tuple[tuple[str, str], ...]  # (category, text) for scripts without spaces
    allowed: PatternSet
    allowed_words: frozenset[str]
    words: frozenset[str]  # of the harmful patterns that English letters spell

    @classmethod
    def load(cls, directory: Path) -> "Rules":
        """Read `harmful.toml` and `allowed.toml` of a directory."""
        harmful = tomllib.loads((directory / "harmful.toml").read_text("utf-8"))
        allowed = tomllib.loads((directory / "allowed.toml").read_text("utf-8"))
        sets = {name: tuple(text.split()) for name, text in harmful.pop("sets").items()}
        patterns = [
            (category, line) for category, entry in harmful.items() for line in _lines(entry["patterns"])
        ]
        return cls(
            harmful=PatternSet(patterns, sets),
            inside=tuple(
                (category, fold(text))
                for category, entry in harmful.items()
                for text in entry.get("inside", "").split()
            ),
            allowed=PatternSet((("allowed", line) for line in _lines(allowed["patterns"])), sets),
            allowed_words=frozenset(allowed["words"]),
            words=frozenset(_english([line for _, line in patterns], sets)),
        )


def _lines(text: str) -> list[str]:
    return [fold(line.strip()) for line in text.splitlines() if line.strip()]


def _english(patterns: Iterable[str], sets: Sets) -> Iterator[str]:
    """The words of patterns; of a prefix, the words it may begin."""
    elements = {element for pattern in patterns for element in pattern.split()}
    for word in {word for element in elements for word in _alternatives(element, sets)}:
        stem = word.removesuffix("*")
        if stem.isascii() and stem.isalpha():
            yield from (stem + ending for ending in (_ENDINGS if stem != word else ("",)))


def _alternatives(element: str, sets: Sets) -> list[str]:
    words: list[str] = []
    for choice in element.split("|"):
        words += sets[choice[1:]] if choice.startswith("@") else [choice]
    return words


def _compile(elements: list[str], sets: Sets) -> str:
    parts = []
    for element in elements:
        if element == "~":
            parts.append(f"(?:(?:{_any(sets['filler'])}|\\w+(?:ing|ed)) ){{0,3}}")
        else:
            parts.append(f"(?:{_any(_alternatives(element, sets))}) ")
    return "".join(parts).removesuffix(" ") + r"(?!\w)"


def _any(words: Iterable[str]) -> str:
    return "|".join(
        re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else r"(?!\w)") for word in words
    )
