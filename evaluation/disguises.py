"""Ways to write a prompt past a filter. Where one is random, the prompt is its seed."""

import random
from collections.abc import Callable, Mapping

Disguise = Callable[[str], str]

_BRAILLE = str.maketrans("abcdefghijklmnopqrstuvwxyz", "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵")
_CYRILLIC = str.maketrans("aeocpxy", "аеосрху")
_LEET = str.maketrans("aeiost", "431057")


def _word_by_word(disguise: Callable[[str, random.Random], str]) -> Disguise:
    def disguised(prompt: str) -> str:
        numbers = random.Random(prompt)
        return " ".join(disguise(word, numbers) for word in prompt.split())

    return disguised


def _split(word: str, numbers: random.Random) -> str:
    at = numbers.randint(1, max(1, len(word) - 1))
    return f"{word[:at]} {word[at:]}"


def _swapped(word: str, numbers: random.Random) -> str:
    if len(word) < 4:
        return word
    at = numbers.randint(1, len(word) - 3)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _doubled(word: str, numbers: random.Random) -> str:
    at = numbers.randrange(len(word))
    return word[:at] + word[at] + word[at:]


def _between(mark: str, *, blanks: bool = False) -> Disguise:
    return lambda prompt: mark.join(prompt if blanks else prompt.replace(" ", ""))


DISGUISES: Mapping[str, Disguise] = {
    "zero-width space between letters": _between("\u200b", blanks=True),
    "Cyrillic lookalikes": lambda prompt: prompt.lower().translate(_CYRILLIC),
    "digits for letters": lambda prompt: prompt.lower().translate(_LEET),
    "struck through": lambda prompt: "".join(f"{letter}\u0336" for letter in prompt),
    "blank between all letters": _between(" "),
    "letters spaced, words by two blanks": lambda prompt: "  ".join(map(" ".join, prompt.split())),
    "letters spaced, words by three blanks": lambda prompt: "   ".join(map(" ".join, prompt.split())),
    "new line between letters": _between("\n"),
    "no-break space between letters": _between("\u00a0"),
    "emoji between letters": _between("😀"),
    "emoji between letters and blanks": _between("😀", blanks=True),
    "dot between letters": _between("."),
    "words split in two": _word_by_word(_split),
    "no blanks": _between(""),
    "CamelCase": lambda prompt: prompt.title().replace(" ", ""),
    "reversed": lambda prompt: prompt[::-1],
    "reversed, shown forwards": lambda prompt: f"\u202e{prompt[::-1]}\u202c",
    "each word reversed": _word_by_word(lambda word, _: word[::-1]),
    "reversed and spaced": lambda prompt: " ".join(prompt[::-1].replace(" ", "")),
    "two letters swapped": _word_by_word(_swapped),
    "one letter doubled": _word_by_word(_doubled),
    "all letters doubled": _word_by_word(lambda word, _: "".join(2 * letter for letter in word)),
    "HTML entities": lambda prompt: "".join(f"&#{ord(letter)};" for letter in prompt),
    "Braille": lambda prompt: prompt.lower().translate(_BRAILLE),
}
"""By name."""
