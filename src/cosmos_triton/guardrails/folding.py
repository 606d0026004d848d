"""A prompt as its reader sees it, whatever it is written with.

People who want a word past a filter write it with Cyrillic letters, digits, full-width or
circled letters, spaces between the letters, or invisible characters. `views` undoes each of these
and returns the readings that differ; a filter looks at all of them.

Lookalikes are Unicode's own table (UTS 39, from the package confusable-homoglyphs) and the letters
that carry their base letter in their Unicode name.
"""

import functools
import itertools
import re
import string
import unicodedata

from confusable_homoglyphs import confusables  # type: ignore[import-untyped]

_BRAILLE = str.maketrans("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵", string.ascii_lowercase)
_MAX_STARS = 20  # masked words tried in one prompt
_LEET = {"0": "o", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g"}
_LEET |= {"@": "a", "$": "s", "+": "t", "€": "e", "£": "l", "¢": "c", "¥": "y"}
_ONE = "1!|¡"  # read as i and as l
_LEET_CHARACTERS = "".join(_LEET) + _ONE

# Marks over and through letters (those of Thai or Devanagari are letters and stay), blank letters.
_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff"
    "\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\u115f\u1160\u2800\u3164]"
)
_NAMED_LETTER = re.compile(
    r"(?:LATIN (?:SMALL|CAPITAL) LETTER|LATIN LETTER SMALL CAPITAL|REGIONAL INDICATOR SYMBOL LETTER"
    r"|NEGATIVE (?:SQUARED|CIRCLED) LATIN CAPITAL LETTER)"
    r" ([A-Z])(?: WITH .*)?"
)
_LETTER = rf"(?:[^\W_]|[{re.escape(_LEET_CHARACTERS)}])"
_SPELLED = re.compile(rf"(?<![^\W_]){_LETTER}(?:[\s\W_]{{1,3}}{_LETTER}){{2,}}(?![^\W_])")
_SPELLING = re.compile(rf"[^\w{re.escape(_LEET_CHARACTERS)}]|_")
_BETWEEN_LETTERS = re.compile(r"(?<=[^\W\d_])[-._·•'’`´~^*+/\\|:,]+(?=[^\W\d_])")
_REPEATED = re.compile(r"([^\W\d_])\1{2,}")
_PRODUCT_CODE = re.compile(r"[a-z]\d{1,3}")
_PUNCTUATION = ".,;:!?()\"'"
_STARRED = re.compile(r"[^\W\d_][^\W\d_*]*\*[^\W\d_*]*\*?[^\W\d_]*")


def fold(text: str) -> str:
    """Compatibility forms, invisible characters, marks and case removed; scripts are kept."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    text = _MARKS.sub("", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", text).casefold()


def latin(text: str) -> str:
    """`fold`, with every letter that looks like a Latin one replaced by it."""
    text = unicodedata.normalize("NFKC", text).translate(_BRAILLE)
    # Before case folding: capital eta looks like H, small eta like n.
    return fold("".join(_lookalike(character) for character in text))


def views(text: str) -> tuple[str, ...]:
    """The distinct readings of a prompt: as it stands first, then without each disguise.

    Returns:
        Strings in lower case. A prompt without disguises has one or two.
    """
    plain, roman = fold(text), latin(text)
    readings = [plain, roman, _joined(roman), _BETWEEN_LETTERS.sub("", roman)]
    for i_or_l in "il":
        readings += [
            _leet(reading, i_or_l) for reading in (roman, _joined(roman), _BETWEEN_LETTERS.sub("", roman))
        ]
    for times in (r"\1", r"\1\1"):
        readings += [_REPEATED.sub(times, reading) for reading in tuple(readings)]
    return tuple(dict.fromkeys([*readings, *_unstarred(roman)]))


@functools.lru_cache(maxsize=4096)
def _lookalike(character: str) -> str:
    if character.isascii():
        return character
    named = _NAMED_LETTER.fullmatch(unicodedata.name(character, ""))
    if named:
        return named[1].lower()
    for form in (character, character.upper()):  # small ve looks like a small capital B
        for other in confusables.confusables_data.get(form, ()):
            if len(other["c"]) == 1 and other["c"].isascii() and other["c"].isalpha():
                return str(other["c"])
    return character


def _joined(text: str) -> str:
    """`k i l l` and `p.o.r.n` to words."""
    return _SPELLED.sub(lambda run: _SPELLING.sub("", run[0]), text)


def _leet(text: str, one: str) -> str:
    """Digits and signs inside words to letters; numbers and product codes stay."""
    table = str.maketrans(_LEET | dict.fromkeys(_ONE, one))
    words = re.split(r"(\s+)", text)
    mixed = [_mixes_letters(word) for word in words]
    # A55 alone is a telephone; beside words that are certainly leet it is one of them.
    if all(
        _PRODUCT_CODE.fullmatch(word.strip(_PUNCTUATION))
        for word, is_mixed in zip(words, mixed, strict=True)
        if is_mixed
    ):
        return text
    return "".join(
        word.translate(table) if is_mixed else word for word, is_mixed in zip(words, mixed, strict=True)
    )


def _mixes_letters(word: str) -> bool:
    inner = word.strip(_PUNCTUATION)
    return any(c.isalpha() for c in inner) and any(c in _LEET_CHARACTERS for c in inner)


def _unstarred(text: str) -> list[str]:
    """`t*rture` and `f**k` with every letter in place of the stars."""
    words = (word.strip(_PUNCTUATION) for word in text.split() if "*" in word)
    starred = (word for word in words if 4 <= len(word) <= 30 and _STARRED.fullmatch(word))
    found = []
    for word in itertools.islice(starred, _MAX_STARS):
        stars = word.count("*")
        for letters in itertools.product(string.ascii_lowercase, repeat=stars):
            filling = iter(letters)
            found.append("".join(next(filling) if c == "*" else c for c in word))
    return [" ; ".join(found)] if found else []
