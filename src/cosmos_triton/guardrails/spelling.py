"""A prompt whose words are broken up, run together, turned round or misspelt, read as it was meant.

Words that are not English are odd. A reading counts if it leaves fewer of them than the prompt has, so a
prompt of plain words has none. What is English is decided by 83,000 words with their frequencies, from the
package symspellpy, and by the words of the patterns that are searched for.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

_PATTERN_WORD = 6.0  # cost of a word that only the patterns have; the rarest of the others costs 7
_UNKNOWN, _UNKNOWN_LETTER = 6.0, 2.0  # cost of what is no word, and of each of its letters
_DEAREST = 1.25  # cost a letter of what still reads as English; letters cut at random cost 1.6
_LONGEST_WORD = 20  # letters of a word that is cut out of others
_TOO_LONG_FOR_A_WORD = 14  # letters of an odd word that may be several
_MOST_LETTERS = 4096  # of a prompt; the text encoder reads 512 tokens, some 2,500 letters
_MISSPELT = range(2, 31)  # letters of words that are mended
_MOST_DOUBLED = 6  # doubled letters of a misspelt word

Words = list[str]


@dataclass(frozen=True)
class Reading:
    """What a prompt may mean.

    Args:
        text: its words, joined by single spaces.
        share: the part of the prompt's letters, 0 to 1, that is in odd words.
    """

    text: str
    share: float


@dataclass(frozen=True)
class Vocabulary:
    """English words with their costs: the negative decimal logarithm of how often one is used."""

    costs: Mapping[str, float]

    @classmethod
    def load(cls, more: Iterable[str] = ()) -> "Vocabulary":
        """The package's words, and `more`."""
        listed = (files("symspellpy") / "frequency_dictionary_en_82_765.txt").read_text("utf-8-sig")
        counts = {word: int(count) for word, count in map(str.split, listed.splitlines())}
        total = sum(counts.values())
        costs = {word: math.log10(total / count) for word, count in counts.items()}
        return cls({**dict.fromkeys(more, _PATTERN_WORD), **costs})

    def readings(self, words: Words) -> Iterator[Reading]:
        """The readings of a prompt's words that have fewer odd letters than it has."""
        words = _first(words, _MOST_LETTERS)
        odd = self._odd_letters(words)
        if not odd:
            return
        backwards = [word[::-1] for word in reversed(words)]
        turned = [backwards, [word[::-1] for word in words]]
        mended = [
            self._regrouped(words),
            [_halved(word) for word in words],
            self._mended(words, _undoubled),
            self._mended(words, _swapped),
        ]
        candidates = [(turn, odd / 2) for turn in (*turned, self._regrouped(backwards))]
        candidates += [(mend, odd) for mend in mended]
        for candidate, most in candidates:
            if self._odd_letters(candidate) < most:
                yield Reading(" ".join(candidate), odd / _letters(words))

    def _is_odd(self, word: str) -> bool:
        return word.isalpha() and word not in self.costs

    def _odd_letters(self, words: Words) -> int:
        return sum(len(word) for word in words if self._is_odd(word))

    def _regrouped(self, words: Words) -> Words:
        """Odd words and their neighbours run together and cut anew, where that makes English of them."""
        near = [
            word.isalpha() and any(self._is_odd(other) for other in words[max(0, place - 1) : place + 2])
            for place, word in enumerate(words)
        ]
        found: Words = []
        for is_near, pairs in itertools.groupby(zip(near, words, strict=True), key=lambda pair: pair[0]):
            run = [word for _, word in pairs]
            found += self._cut_anew(run) if is_near else run
        return found

    def _cut_anew(self, run: Words) -> Words:
        odd = [word for word in run if self._is_odd(word)]
        if len(odd) == 1 and len(odd[0]) < _TOO_LONG_FOR_A_WORD:
            return self._joined(run)  # a name is one odd word, and not to be cut
        cut = self._cut("".join(run))
        return cut if sum(map(self._cost, cut)) < _DEAREST * _letters(cut) else run

    def _joined(self, run: Words) -> Words:
        """Neighbours of which one is odd, and that are a word together, as that word."""
        found: Words = []
        for word in run:
            if found and (self._is_odd(found[-1]) or self._is_odd(word)) and found[-1] + word in self.costs:
                found[-1] += word
            else:
                found.append(word)
        return found

    def _cut(self, letters: str) -> Words:
        """The cheapest words that letters can be cut into."""
        best = [(0.0, 0)]  # of the letters up to here: cost, and where the last word begins
        for end in range(1, len(letters) + 1):
            starts = range(max(0, end - _LONGEST_WORD), end)
            best.append(min((best[start][0] + self._cost(letters[start:end]), start) for start in starts))
        words, end = [], len(letters)
        while end:
            start = best[end][1]
            words.append(letters[start:end])
            end = start
        return words[::-1]

    def _cost(self, word: str) -> float:
        return self.costs.get(word, _UNKNOWN + _UNKNOWN_LETTER * len(word))

    def _mended(self, words: Words, spellings: Callable[[str], Iterable[str]]) -> Words:
        """Each odd word as the commonest word among its other spellings."""

        def mended(word: str) -> str:
            if not self._is_odd(word) or len(word) not in _MISSPELT:
                return word
            return min(
                (s for s in spellings(word) if s in self.costs), key=self.costs.__getitem__, default=word
            )

        return [mended(word) for word in words]


def _first(words: Words, letters: int) -> Words:
    """The words, or pieces of them, that the first letters of a prompt make up."""
    ends = itertools.accumulate(map(len, words))
    return [
        word[: letters - (end - len(word))]
        for word, end in zip(words, ends, strict=True)
        if end - len(word) < letters
    ]


def _letters(words: Words) -> int:
    return sum(map(len, words))


def _halved(word: str) -> str:
    """`kkiillll` → `kill`; any other word as it is."""
    return word[::2] if word[::2] == word[1::2] else word


def _undoubled(word: str) -> Iterator[str]:
    """`wooman` → `woman`: repeated letters once or twice, in every combination."""
    runs = ["".join(run) for _, run in itertools.groupby(word)]
    if sum(len(run) > 1 for run in runs) <= _MOST_DOUBLED:
        yield from map(
            "".join, itertools.product(*((run[0], run[:2]) if run[1:] else (run,) for run in runs))
        )


def _swapped(word: str) -> Iterator[str]:
    """`kilsl` → `kills`: every pair of neighbouring letters the other way round."""
    for place in range(len(word) - 1):
        yield word[:place] + word[place + 1] + word[place] + word[place + 2 :]
