import json

import pytest

from cosmos_triton.errors import InvalidInput
from cosmos_triton.serving.report import MAX_BYTES, add_stage, dump, finish, merge, parse


def test_a_report_travels_as_json() -> None:
    report = {"model": "tiny", "note": "é"}
    assert parse(dump(report)) == report
    assert parse(None) == {}


def test_a_report_that_is_under_way_is_taken() -> None:
    report = add_stage({}, "media_decoder", {"input": {"kind": "video"}}, 1.7e9, 1.7e9 + 0.5)
    assert parse(dump(report)) == report


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff{}",
        b"[" * 60_000,
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":Infinity}',
        rb'{"model":"\ud800"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"report is (not valid JSON in UTF-8|nested more than 8)"):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "kind"), [(b"[]", "list"), (b"null", "NoneType"), (b'"a"', "str"), (b"1", "int")]
)
def test_what_is_no_object_is_refused(raw: bytes, kind: str) -> None:
    with pytest.raises(InvalidInput, match=f"report is a JSON {kind}, not an object"):
        parse(raw)


def test_a_report_is_bounded() -> None:
    with pytest.raises(InvalidInput, match=r"report has 65\d\d\d bytes; at most 65536 are taken"):
        parse(dump({"note": "x" * MAX_BYTES}))


@pytest.mark.parametrize("timeline", [{}, "abc", 1, None, [["a", 0, 1]] * 51])
def test_a_timeline_is_a_short_list(timeline: object) -> None:
    with pytest.raises(InvalidInput, match="_timeline that is not a list of at most 50 stages"):
        parse(json.dumps({"_timeline": timeline}).encode())


@pytest.mark.parametrize(
    "entry",
    [
        [],
        "abc",
        ["a", 0],
        ["a", 0, 1, 2],
        [1, 0, 1],
        ["A stage", 0, 1],
        ["a" * 65, 0, 1],
        ["", 0, 1],
        ["a", "0", 1],
        ["a", True, 1],
        ["a", -1, 1],
        ["a", 0, None],
        ["a", 0, 10**400],
    ],
)
def test_an_entry_is_a_stage_and_two_times(entry: object) -> None:
    with pytest.raises(InvalidInput, match=r"_timeline entry that is not \[stage, began, ended\]"):
        parse(json.dumps({"_timeline": [entry]}).encode())


def test_merge_is_deep_and_leaves_its_input_alone() -> None:
    before = {"guardrails": {"prompt": "allowed"}}
    assert merge(before, {"guardrails": {"video": "allowed"}, "seed": 1}) == {
        "guardrails": {"prompt": "allowed", "video": "allowed"},
        "seed": 1,
    }
    assert before == {"guardrails": {"prompt": "allowed"}}


def test_a_section_wins_over_what_does_not_fit_it() -> None:
    assert merge({"model": {}, "guardrails": 1}, {"model": "tiny", "guardrails": {"video": 2}}) == {
        "model": "tiny",
        "guardrails": {"video": 2},
    }


def test_seconds_of_engine_stages_are_the_gaps_between_their_neighbours() -> None:
    report = add_stage({}, "media_decoder", {"input": {"kind": "video"}}, 100.0, 100.5)
    report = add_stage(report, "ar_sampler", {"model": "tiny"}, 101.0, 105.0)
    report = add_stage(report, "video_guardrail", {}, 107.0, 107.25)
    report = add_stage(report, "media_encoder", {}, 107.25, 108.0)
    finished = finish(report)
    assert finished == {
        "input": {"kind": "video"},
        "model": "tiny",
        "seconds": {
            "media_decoder": 0.5,
            "video_encoder": 0.5,
            "ar_sampler": 4.0,
            "video_decoder": 2.0,
            "video_guardrail": 0.25,
            "media_encoder": 0.75,
            "total": 8.0,
        },
    }
