import pytest

from cosmos_triton.guardrails.spelling import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load({"cobot"})


def readings(vocabulary: Vocabulary, prompt: str) -> set[str]:
    return {reading.text for reading in vocabulary.readings(prompt.split())}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("t h e r e d d o o r o p e n s", "the red door opens"),
        ("thereddooropens", "the red door opens"),
        ("th e r ed d oor op ens", "the red door opens"),
        ("snepo rood der eht", "the red door opens"),
        ("eht der rood snepo", "the red door opens"),
        ("the rde door oepns", "the red door opens"),
        ("thatt wooden dooor openns", "that wooden door opens"),
        ("tthhee rreedd ddoooorr ooppeennss", "the red door opens"),
    ],
)
def test_each_way_to_hide_words_has_a_reading(vocabulary: Vocabulary, written: str, meant: str) -> None:
    assert meant in readings(vocabulary, written)


def test_a_prompt_of_words_has_no_other_reading(vocabulary: Vocabulary) -> None:
    assert readings(vocabulary, "the pen is red and the cobot lives") == set()


def test_one_odd_word_is_a_name_and_not_cut(vocabulary: Vocabulary) -> None:
    assert readings(vocabulary, "the market of penistone in the rain") == set()


def test_what_cannot_be_read_has_no_reading(vocabulary: Vocabulary) -> None:
    assert readings(vocabulary, "qzx vkj wqp") == set()


def test_a_reading_tells_how_odd_the_prompt_was(vocabulary: Vocabulary) -> None:
    (reading,) = vocabulary.readings(["the", "rde"])
    assert (reading.text, reading.share) == ("the red", 0.5)


def test_long_prompts_take_no_time(vocabulary: Vocabulary) -> None:
    for words in (["x" * 16_000], ["ab"] * 8000, ["q"] * 8000, ["kk"] * 8000):
        assert len(list(vocabulary.readings(words))) < 8  # a quadratic step would take minutes
