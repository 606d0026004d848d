from cosmos_triton.serving.report import add_stage, dump, finish, merge, parse


def test_a_report_travels_as_json() -> None:
    report = {"model": "tiny", "note": "é"}
    assert parse(dump(report)) == report
    assert parse(None) == {}


def test_merge_is_deep_and_leaves_its_input_alone() -> None:
    before = {"guardrails": {"prompt": "allowed"}}
    assert merge(before, {"guardrails": {"video": "allowed"}, "seed": 1}) == {
        "guardrails": {"prompt": "allowed", "video": "allowed"},
        "seed": 1,
    }
    assert before == {"guardrails": {"prompt": "allowed"}}


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
