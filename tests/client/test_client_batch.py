"""JSON Lines in, names, the record of results: all without a server."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cosmos_client import RequestRefused, UsageError, World
from cosmos_client._batch import BadLine, Clip, ClipResult, name_outputs, read_lines, run_batch


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def a_clip(line: int, visual_input: str) -> Clip:
    return Clip(line, visual_input, Path(visual_input), {})


def test_a_line_overrides_the_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path / "clips.jsonl",
        {"visual_input": "a.mp4", "prompt": "a robot", "seed": 5, "top_p": None},
        {"visual_input": "b.mp4", "fps": 24, "crf": 1},
    )
    first, second = read_lines(path, {"seed": 1, "top_p": 0.5})
    assert isinstance(first, Clip)
    assert first.options == {"prompt": "a robot", "seed": 5, "top_p": 0.5}
    assert isinstance(second, Clip)
    assert second.options == {"seed": 1, "top_p": 0.5}
    assert (first.unknown, second.unknown) == ((), ("crf", "fps"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "the line is not JSON"),
        (b'{"visual_input": "\xff"}', "the line is not JSON"),
        (b"[" * 100_000, "the line is not JSON"),
        (b'["a.mp4"]', "not a JSON object but list"),
        (b"{}", "visual_input must be the path of a file, not None"),
        (b'{"visual_input": ""}', "visual_input must be the path of a file, not ''"),
        (b'{"visual_input": 5}', "visual_input must be the path of a file, not 5"),
    ],
)
def test_a_line_that_cannot_be_used_is_a_result_not_a_crash(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "clips.jsonl"
    good = b'{"visual_input": "a.mp4"}\r\n'
    path.write_bytes(good + line + b"\n" + good)
    first, bad, last = read_lines(path, {})
    assert isinstance(first, Clip)
    assert isinstance(last, Clip)
    assert last.line == 3
    assert isinstance(bad, BadLine)
    assert bad.line == 2
    assert reason in bad.error


def test_a_byte_order_mark_a_missing_newline_and_line_separators_in_text(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    text = '{"visual_input": "a.mp4", "prompt": "one\u2028line"}'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n" + text.encode())
    prompts = [line.options["prompt"] for line in read_lines(path, {}) if isinstance(line, Clip)]
    assert prompts == ["one\u2028line"] * 2


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_blank_lines_are_counted_but_are_no_clips(tmp_path: Path, newline: bytes) -> None:
    path = tmp_path / "clips.jsonl"
    clip = b'{"visual_input": "a.mp4"}'
    path.write_bytes(newline.join([b"\xef\xbb\xbf", clip, b"", b" \t", clip, b"{", b"", b""]))
    lines = read_lines(path, {})
    assert [line.line for line in lines] == [2, 5, 6]
    assert [isinstance(line, Clip) for line in lines] == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \r\n", b"\xef\xbb\xbf\n"])
def test_a_file_without_lines_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match="has no lines"):
        read_lines(tmp_path / "empty.jsonl", {})
    with pytest.raises(UsageError, match="cannot read"):
        read_lines(tmp_path / "absent.jsonl", {})


def test_a_clip_is_looked_for_here_and_then_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("here/both.mp4", "data/both.mp4", "data/beside.mp4"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    names = ("both.mp4", "beside.mp4", "a\0b.mp4", str(tmp_path / "absolute.mp4"))
    path = write(tmp_path / "data" / "clips.jsonl", *({"visual_input": name} for name in names))
    found = [line.path for line in read_lines(path, {}) if isinstance(line, Clip)]
    assert found[0] == Path("both.mp4")
    assert found[1] == tmp_path / "data" / "beside.mp4"
    assert found[3] == tmp_path / "absolute.mp4"


def test_names_follow_the_clips_and_never_meet(tmp_path: Path) -> None:
    inputs = ["x/clip.mp4", "y/clip.mp4", "clip.png", "clip-2.mp4", "CLIP.mp4", "x/clip.mp4", "other.jpg"]
    named = name_outputs([a_clip(n, name) for n, name in enumerate(inputs)], tmp_path)
    names = [named[n].name for n in range(len(inputs))]
    assert names[0] == "clip.mp4"
    assert names[-1] == "other.mp4"
    assert len({name.casefold() for name in names}) == len(inputs)
    assert {path.parent for path in named.values()} == {tmp_path}


def test_no_video_takes_the_place_of_a_clip(tmp_path: Path) -> None:
    clips = [a_clip(1, str(tmp_path / "clip.mp4")), a_clip(2, str(tmp_path / "clip-2.mp4"))]
    named = name_outputs(clips, tmp_path)
    assert {path.name for path in named.values()} == {"clip-3.mp4", "clip-2-2.mp4"}


def a_world(clip: Clip, request_id: str) -> World:
    seed = clip.options.get("seed", 0)
    return World(clip.visual_input.encode(), np.zeros((5, 1, 1), np.int32), {"seed": seed}, request_id)


def run(
    folder: Path,
    lines: list[Clip | BadLine],
    generate: Callable[[Clip, str], World],
    on_result: Callable[[ClipResult], None] = lambda result: None,
    stop: Callable[[], None] = lambda: None,
    concurrency: int = 2,
) -> list[ClipResult]:
    clips = [line for line in lines if isinstance(line, Clip)]
    return run_batch(
        lines,
        generate,
        outputs=name_outputs(clips, folder),
        results=folder / "results.jsonl",
        concurrency=concurrency,
        on_result=on_result,
        stop=stop,
    )


def recorded(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_results_are_in_input_order_whatever_finishes_first(tmp_path: Path) -> None:
    def generate(clip: Clip, request_id: str) -> World:
        time.sleep(0.15 if clip.line == 1 else 0.0)
        if clip.line == 3:
            raise RequestRefused("no")
        return a_world(clip, request_id)

    finished: list[int] = []
    while_running: list[list[dict[str, object]]] = []

    def on_result(result: ClipResult) -> None:
        finished.append(result.line)
        while_running.append(recorded(tmp_path))

    lines: list[Clip | BadLine] = [
        a_clip(1, "a.mp4"),
        BadLine(2, "empty"),
        a_clip(3, "c.mp4"),
        a_clip(4, "d"),
    ]
    results = run(tmp_path, lines, generate, on_result)
    assert finished[-1] == 1
    assert [len(record) for record in while_running] == [1, 2, 3, 4]  # the file is whole at each moment
    assert [result.status for result in results] == ["ok", "failed", "failed", "ok"]
    record = recorded(tmp_path)
    assert [entry["line"] for entry in record] == [1, 2, 3, 4]
    assert record[0]["output"] == str(tmp_path / "a.mp4")
    assert record[0]["report"] == {"seed": 0}
    assert (record[1]["error"], record[2]["error"]) == ("empty", "no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "d.mp4", "results.jsonl"]


def test_a_video_that_cannot_be_saved_fails_its_clip_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    results = run(tmp_path, [a_clip(1, "a.mp4"), a_clip(2, "b.mp4")], a_world)
    assert [result.status for result in results] == ["failed", "ok"]
    assert not list(tmp_path.glob(".*"))


def test_an_interruption_stops_and_records_the_rest_as_cancelled(tmp_path: Path) -> None:
    stopped: list[bool] = []

    def generate(clip: Clip, request_id: str) -> World:
        while clip.line == 2 and not stopped:
            time.sleep(0.01)
        return a_world(clip, request_id)

    def interrupt(result: ClipResult) -> None:
        raise KeyboardInterrupt

    lines: list[Clip | BadLine] = [a_clip(n, f"{n}.mp4") for n in range(1, 6)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, lines, generate, interrupt, lambda: stopped.append(True))
    record = recorded(tmp_path)
    assert stopped
    assert [entry["line"] for entry in record] == [1, 2, 3, 4, 5]
    assert {entry["status"] for entry in record} <= {"ok", "cancelled"}
    for entry in record:
        assert (tmp_path / f"{entry['line']}.mp4").exists() == (entry["status"] == "ok")


def test_no_more_clips_at_once_than_asked_for(tmp_path: Path) -> None:
    running: list[int] = []
    peak: list[int] = []

    def generate(clip: Clip, request_id: str) -> World:
        running.append(clip.line)
        peak.append(len(running))
        time.sleep(0.05)
        running.remove(clip.line)
        return a_world(clip, request_id)

    run(tmp_path, [a_clip(n, f"{n}.mp4") for n in range(9)], generate, concurrency=3)
    assert max(peak) == 3
