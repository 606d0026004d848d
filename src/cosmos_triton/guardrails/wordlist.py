"""The built-in prompt filter: a word-list library, and patterns for what one asks a world model.

The library (badwords-py) knows obscenities and slurs and nothing of violence; the patterns know
what a harmful scene is made of. Its English list and those of scripts that share no letters with
English are used. Its other Latin-script lists are not: they block `pipe` (French), `fan` (Swedish),
`here` (Hungarian) and `mesa` (Portuguese) in English prompts.
"""

import html
from dataclasses import dataclass
from pathlib import Path

from badwords import Options, ProfanityFilter

from cosmos_triton.errors import CheckpointError
from cosmos_triton.guardrails.folding import latin, views
from cosmos_triton.guardrails.interface import Finding
from cosmos_triton.guardrails.patterns import Hit, Rules, words_of
from cosmos_triton.guardrails.spelling import Vocabulary

LANGUAGES = ("en", "el", "ja", "ko", "ru", "th", "uk")
DATA = Path(__file__).parent / "data"

_OPTIONS = Options(collapse_repeats=True)
_MUST_BE_FOUND = ("a man kills a woman", "谋杀", "motherfucker", "amankillsawoman")  # one for each mechanism
_DISGUISED = 0.5  # share of odd letters from which single words of a mended prompt are looked at


@dataclass(frozen=True)
class WordListCheck:
    """Finds harmful words in a prompt, however they are written."""

    rules: Rules
    library: ProfanityFilter
    vocabulary: Vocabulary
    name: str = "word_list"

    @classmethod
    def load(cls, directory: Path = DATA) -> "WordListCheck":
        """Read the patterns of `directory` and the library's lists.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        library = ProfanityFilter()
        try:
            library.init(list(LANGUAGES))
            rules = Rules.load(directory)
            loaded = cls(rules, library, Vocabulary.load(rules.words))
        except Exception as error:
            raise CheckpointError(
                f"the prompt filter's lists cannot be read ({error}): reinstall cosmos-triton, "
                "badwords-py and symspellpy"
            ) from error
        for prompt in _MUST_BE_FOUND:
            if loaded.search(prompt) is None:
                raise CheckpointError(
                    f"the prompt filter in {directory} finds nothing in a prompt it must refuse: "
                    "reinstall cosmos-triton and badwords-py"
                )
        return loaded

    def find(self, prompt: str) -> Finding | None:
        """What is wrong with the prompt; None if nothing is."""
        hit = self.search(prompt)
        if hit is None:
            return None
        category = hit.category.replace("_", " ")
        return Finding(hit.category, f"the words '{hit.text}' of the prompt are on the list of {category}")

    def search(self, prompt: str) -> Hit | None:
        """The first harmful words of a prompt, as read; None if there are none."""
        prompt = html.unescape(prompt)
        for view in views(prompt):
            words = self.rules.allowed.without(words_of(view))
            if hit := self.rules.harmful.find(words) or self._inside(view) or self._library(words):
                return hit
        return self._search_mended(prompt)

    def _search_mended(self, prompt: str) -> Hit | None:
        """The same in readings with other words than the prompt's.

        The library's single words count where half of the prompt is odd: one odd word may be a name.
        """
        for reading in self.vocabulary.readings(words_of(latin(prompt)).split()):
            words = self.rules.allowed.without(reading.text)
            hit = self.rules.harmful.find(words)
            if hit is None and reading.share >= _DISGUISED:
                hit = self._library(words)
            if hit:
                return hit
        return None

    def _inside(self, view: str) -> Hit | None:
        dense = "".join(view.split())
        for category, text in self.rules.inside:
            if text in dense:
                return Hit(category, text)
        return None

    def _library(self, words: str) -> Hit | None:
        for match in self.library.find(words, _OPTIONS):
            # The library reads Latin letters as Cyrillic or Greek ones too: `cite` as a Russian word.
            foreign = match.language != "en" and match.matched_text.isascii()
            if not foreign and match.word not in self.rules.allowed_words:
                return Hit("obscenity", match.matched_text)
        return None
