"""The list of a batch: its form, its clips, the names of their videos."""

import json
from pathlib import Path

import pytest

from cosmos_client import UsageError
from cosmos_client._clips import BadLine, Clip, name_outputs, read_clips


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
    first, second = read_clips(path, {"seed": 1, "top_p": 0.5})
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
    first, bad, last = read_clips(path, {})
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
    prompts = [line.options["prompt"] for line in read_clips(path, {}) if isinstance(line, Clip)]
    assert prompts == ["one\u2028line"] * 2


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_blank_lines_are_counted_but_are_no_clips(tmp_path: Path, newline: bytes) -> None:
    path = tmp_path / "clips.jsonl"
    clip = b'{"visual_input": "a.mp4"}'
    path.write_bytes(newline.join([b"\xef\xbb\xbf", clip, b"", b" \t", clip, b"{", b"", b""]))
    lines = read_clips(path, {})
    assert [line.line for line in lines] == [2, 5, 6]
    assert [isinstance(line, Clip) for line in lines] == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \r\n", b"\xef\xbb\xbf\n"])
def test_a_file_without_lines_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match="has no lines"):
        read_clips(tmp_path / "empty.jsonl", {})
    with pytest.raises(UsageError, match="cannot read"):
        read_clips(tmp_path / "absent.jsonl", {})


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
    found = [line.path for line in read_clips(path, {}) if isinstance(line, Clip)]
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


ONE = {"visual_input": "a.mp4", "seed": 3}
OTHER = {"visual_input": "b.mp4", "prompt": "größer"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ONE, OTHER]),
        json.dumps([ONE, OTHER], indent=2),
        json.dumps(ONE, indent=2) + "\n" + json.dumps(OTHER, indent=4) + "\n",
        json.dumps(ONE, indent=2) + json.dumps(OTHER),
        json.dumps(ONE) + json.dumps(OTHER),
        json.dumps(ONE) + "\r\n\r\n" + json.dumps(OTHER, ensure_ascii=False),
    ],
    ids=["array", "printed array", "printed objects", "one after the other", "one line", "lines"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_list_whose_meaning_is_clear_is_taken(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "clips").write_bytes(text.encode(encoding))
    clips = [line for line in read_clips(tmp_path / "clips", {}) if isinstance(line, Clip)]
    assert [(clip.visual_input, clip.options) for clip in clips] == [
        ("a.mp4", {"seed": 3}),
        ("b.mp4", {"prompt": "größer"}),
    ]
    assert len({clip.line for clip in clips}) == 2


def test_an_object_over_several_lines_stands_on_the_line_it_begins_on(tmp_path: Path) -> None:
    text = "\n" + json.dumps(ONE, indent=2) + "\n\n" + json.dumps(OTHER, indent=2)
    (tmp_path / "clips").write_text(text)
    assert [line.line for line in read_clips(tmp_path / "clips", {})] == [2, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x20ftypisom" + bytes(5000), r"is a video \(MP4 or MOV\), not a list of clips.*--input"),
        (b"\x1aE\xdf\xa3" + b"webm" * 9, r"is a video \(WebM or Matroska\)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), r"is a picture \(PNG\)"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", r"is a picture \(WebP\)"),
        (bytes(9000), "is no text, not a list"),
        (b"a.mp4\nb.mp4\n", r"is not a list of clips: Expecting value: line 1 column 1"),
        (b"visual_input,seed\na.mp4,3\n", "is not a list of clips"),
        (b'[\n  {"visual_input": "a.mp4"},\n  {"visual_input": "b.mp4"}\n', "is not a list of clips.*line 4"),
        (b'{\n  "visual_input": "a.mp4",\n}\n', "is not a list of clips.*line"),
        (b'["a.mp4", "b.mp4"]', "clips:1: the line is not a JSON object but str; nothing else"),
        (b'{"prompt": "a robot"}\n{"prompt": "a cat"}\n', "clips:1: visual_input must be the path"),
        (b'{"clips": [{"visual_input": "a.mp4"}]}', "clips:1: visual_input must be the path"),
        (b"\xff\xfe{\0\0", "looks like UTF-16, but is not"),
        (b"<!DOCTYPE html><html></html>", "is not a list of clips"),
    ],
)
def test_a_file_that_is_no_list_is_refused_whole_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "clips").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_clips(tmp_path / "clips", {})
    assert "\n" not in str(caught.value)


def test_in_a_list_of_lines_a_bad_one_stands_alone(tmp_path: Path) -> None:
    lines = ["# mine", *[json.dumps({"visual_input": name}) for name in ("a.mp4", "~/a.mp4")]]
    lines += ['{"visual_input": "C:\\data\\a.mp4"}', '{"visual_input": "a.mp4",}']
    (tmp_path / "clips").write_text("\n".join(lines))
    read = read_clips(tmp_path / "clips", {})
    assert [line.line for line in read if isinstance(line, Clip)] == [2, 3]
    assert [line.line for line in read if isinstance(line, BadLine)] == [1, 4, 5]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("data:video/mp4;base64," + "A" * 5000, "a data URL"),
        ("https://example.com/a.mp4", "a URL"),
        ("file:///tmp/a.mp4", "a URL"),
    ],
)
def test_a_url_is_named_as_one_and_cut_short(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / "clips", {"visual_input": name}, {"visual_input": "a.mp4"})
    bad, good = read_clips(path, {})
    assert isinstance(good, Clip)
    assert isinstance(bad, BadLine)
    assert f"is {kind}, not the path of a file" in bad.error
    assert len(bad.error) < 300


def test_what_is_no_text_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "film.mp4").open("wb") as film:
        film.write(b"\0\0\0\x20ftypisom")
        film.truncate(2**40)  # more than fits into memory
    with pytest.raises(UsageError, match="is a video"):
        read_clips(tmp_path / "film.mp4", {})
