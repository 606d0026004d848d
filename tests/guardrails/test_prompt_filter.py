"""The built-in prompt filter, on the labelled prompts and on its own language."""

import json
from pathlib import Path

import pytest

from cosmos_triton.errors import CheckpointError
from cosmos_triton.guardrails.patterns import PatternSet
from cosmos_triton.guardrails.wordlist import DATA, WordListCheck

PROMPTS = Path(__file__).parents[1] / "data" / "guardrails"

SETS = {"person": ("man", "women*"), "filler": ("a", "the")}


@pytest.fixture(scope="module")
def check() -> WordListCheck:
    return WordListCheck.load()


def labelled(*names: str) -> list[tuple[str, str]]:
    lines = [line for name in names for line in (PROMPTS / name).read_text("utf-8").splitlines()]
    return [(entry["label"], entry["prompt"]) for entry in map(json.loads, lines)]


ALL = labelled("prompts.jsonl", "prompts_held_out.jsonl", "prompts_final.jsonl")


@pytest.mark.parametrize("prompt", [prompt for label, prompt in ALL if label == "harmless"])
def test_harmless_prompts_pass(check: WordListCheck, prompt: str):
    assert check.find(prompt) is None


def test_nearly_all_harmful_prompts_are_found(check: WordListCheck):
    harmful = [prompt for label, prompt in ALL if label == "harmful"]
    missed = [prompt for prompt in harmful if check.find(prompt) is None]
    assert len(missed) <= 2, missed  # two describe violence without a word for it


def test_a_finding_names_category_and_words(check: WordListCheck):
    finding = check.find("In the yard a m4n k1lls an old w0man")
    assert finding is not None
    assert finding.category == "violence"
    assert "'kills an old woman'" in finding.reason


def test_names_of_places_pass(check: WordListCheck):
    places = "Scunthorpe Penistone Clitheroe Cockermouth Dickleburgh Titisee Assen Pornic Fuqing Gore Negril"
    assert [place for place in places.split() if check.find(f"A street in {place}")] == []


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("hit ~ @person", "they hit the man hard", "hit the man"),
        ("hit ~ @person", "they hit the crying women there", "hit the crying women"),
        ("hit ~ @person", "they hit the wall, man", None),
        ("hit ~ @person", "they hit the manual", None),
        ("stab*|cut up", "she stabbed up", "stabbed up"),
        ("one|two three", "two three four", "two three"),
        ("one", "someone", None),
        ("one*", "oneness", "oneness"),
    ],
)
def test_the_pattern_language(pattern: str, text: str, found: str | None):
    hit = PatternSet([("kind", pattern)], SETS).find(text.replace(",", ""))
    assert (hit.text if hit else None) == found


def test_allowed_words_are_taken_out_and_nothing_else():
    allowed = PatternSet([("allowed", "killer whale*")], {})
    assert allowed.without("a killer whales kill") == "a . kill"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("harmful.toml", None),
        ("harmful.toml", ""),
        ("harmful.toml", "[sets]\nfiller = ''\n[violence]\npatterns = ''\n"),
        ("harmful.toml", "not toml ["),
        ("allowed.toml", None),
    ],
)
def test_missing_damaged_or_empty_lists_do_not_load(tmp_path: Path, name: str, content: str | None):
    for file in ("harmful.toml", "allowed.toml"):
        (tmp_path / file).write_bytes((DATA / file).read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match="reinstall"):
        WordListCheck.load(tmp_path)
