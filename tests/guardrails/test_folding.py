"""Every disguise, undone."""

import pytest

from cosmos_triton.guardrails.folding import fold, latin, views


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Straße", "strasse"),
        ("ｗｏｒｄ", "word"),
        ("𝔀𝓸𝓻𝓭", "word"),
        ("w\u200bo\u200dr\u2060d\ufeff", "word"),
        ("w\u0336o\u0336r\u0336d", "word"),
        ("wörd", "word"),
        ("Ёж", "еж"),
        ("วิดีโอ", "วิดีโอ"),
        ("हत्या", "हत्या"),
        ("ガラス", "ガラス"),
        ("قَتْل", "قتل"),
    ],
)
def test_folding_keeps_the_script(written: str, read: str):
    assert fold(written) == read


@pytest.mark.parametrize(
    "written",
    ["wоrd", "шord".replace("ш", "w"), "wοrԁ", "ⓦⓞⓡⓓ", "ᴡᴏʀᴅ", "🆆🅾🆁🅳", "🅦🅞🅡🅓", "wørd", "🇼🇴🇷🇩", "WОRD"],
)
def test_lookalikes_become_latin(written: str):
    assert latin(written) == "word"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a s p a c e d word", "aspaced word"),
        ("d.o.t.s and d-a-s-h and u_n_d_e_r", "dots and dash and under"),
        ("hy-phen", "hyphen"),
        ("l33t w0rd", "leet word"),
        ("$1gn @nd", "sign and"),
        ("be11 to11", "bell toll"),
        ("l 3 3 t", "leet"),
        ("looooong", "long"),
        ("goooood", "good"),
    ],
)
def test_disguises_are_among_the_views(written: str, read: str):
    assert read in views(written)


@pytest.mark.parametrize(("written", "read"), [("w*rd", "word"), ("w**d", "word"), ("(w*rd)", "word")])
def test_stars_are_tried(written: str, read: str):
    assert any(read in view.split(" ; ") for view in views(written))


def test_plain_text_has_one_view():
    assert views("A robot arm lifts a cube.") == ("a robot arm lifts a cube.",)


@pytest.mark.parametrize("text", ["Galaxy A55", "room 55 at 5:15", "2*3*4", "3/8 of 10"])
def test_numbers_and_product_codes_stay(text: str):
    assert {view for view in views(text) if any(c.isdigit() for c in view)} == set(views(text))


@pytest.mark.parametrize(
    "text", ["a" * 16_000, "*a" * 8000, "a\u0301" * 8000, "k i l " * 2600, "a.b." * 4000]
)
def test_long_prompts_take_no_time(text: str):
    assert views(text)  # a quadratic step would take minutes here
