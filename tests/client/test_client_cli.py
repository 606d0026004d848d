"""The command line: usage without a server, the rest against a real one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cosmos_client._progress import one_line, waiting
from cosmos_client.cli import _signals_as_exit, main

if TYPE_CHECKING:
    from conftest import Peer

NOBODY = "localhost:1"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"ok")
    return path


def exit_code(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as end:  # argparse
        return end.code if isinstance(end.code, int) else 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frobnicate"],
        ["generate"],
        ["generate", "--input", "CLIP"],
        ["generate", "--output", "w.mp4"],
        ["generate", "--input", "absent.mp4", "--output", "w.mp4"],
        ["generate", "--input", "CLIP", "--output", "CLIP"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--save-tokens", "w.mp4"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--seed", "one"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--num-input-frames", "5"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--timeout-s", "0"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--timeout-s", "inf"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--timeout-s", "1e12"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--url", "http://localhost:8001"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--prompt", "a\udc80"],
        ["generate", "--input", "CLIP", "--output", "new/w.mp4", "--model", ""],
        ["generate", "--input", "CLIP", "--output", "new/w.mp4", "--model=cosmos_base", "--prompt=x"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--output-folder", "d"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--video_save_name", "w"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--input_type", "image"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--input_type", "text_and_video"],
        ["generate", "--input", "CLIP", "--output", "w.mp4", "--inp", "CLIP"],  # no abbreviations
        ["generate", "--input", "CLIP", "--output", "/dev/null"],
        ["generate", "--batch-input-path", "LINES"],
        ["generate", "--batch-input-path", "absent.jsonl", "--output-folder", "d"],
        ["generate", "--batch-input-path", "LINES", "--output-folder", "d", "--model", ""],
        ["generate", "--batch-input-path", "LINES", "--output-folder=d", "--model=cosmos_base", "--prompt=x"],
        ["generate", "--batch-input-path", "LINES", "--output-folder", "d", "--concurrency", "0"],
        ["generate", "--batch-input-path", "LINES", "--output-folder", "d", "--concurrency", "x"],
        ["generate", "--batch-input-path", "CLIP", "--output-folder", "d"],
        ["generate", "--input", "data:image/png;base64,iVBORw0KGgo=", "--output", "w.mp4"],
        ["generate", "--input", "CLIP", "--output", "-", "--save-report", "-"],
        ["generate", "--batch-input-path", "LINES", "--output-folder", "d", "--input", "CLIP"],
        ["generate", "--batch-input-path", "LINES", "--output-folder", "d", "--output", "w.mp4"],
        ["generate", "--batch-input-path", "LINES", "--output-folder", "d", "--save-tokens", "t.npy"],
        ["status", "--timeout-s", "-1"],
        ["status", "--timeout-s", "1e12"],
        ["status", "--url", "localhost:99999"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_before_anything_is_written(
    words: list[str],
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = tmp_path / "clips.jsonl"
    lines.write_text('{"visual_input": "clip.mp4"}\n')
    monkeypatch.chdir(tmp_path)
    named = {"CLIP": str(clip), "LINES": str(lines)}
    url = [] if "--url" in words or not words or words[0] == "frobnicate" else ["--url", NOBODY]
    assert exit_code(*(named.get(word, word) for word in words), *url) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clips.jsonl"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cosmos-client: error: ")
    assert err.count("\n") == 1


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["generate", "--help"]):
        assert exit_code(*words) == 0
        text = capsys.readouterr().out
        assert "cosmos-client generate --input clip.mp4 --output world.mp4" in text
        assert "exit codes" in text


def test_nobody_answers(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "clips.jsonl"
    lines.write_text('{"visual_input": "clip.mp4"}\n' * 3)
    sentence = f"cosmos-client: error: no server answers at {NOBODY} (connection refused)\n"
    for words in (
        ("generate", "--input", clip, "--output", tmp_path / "w.mp4"),
        ("generate", "--batch-input-path", lines, "--output-folder", tmp_path),
        ("status",),
    ):
        assert exit_code(*words, "--url", NOBODY) == 1
        assert capsys.readouterr() == ("", sentence)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clips.jsonl"]


def test_status_as_json_says_so_when_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", "--json", "--url", NOBODY) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ready"] is False
    assert "connection refused" in answer["error"]


def test_the_waiting_line_is_drawn_on_a_terminal_and_wiped() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal:
        with waiting("cosmos_base", terminal):
            drawn = os.read(leader, 100).decode()
        wiped = os.read(leader, 100).decode()
    os.close(leader)
    assert "cosmos_base 00:00" in drawn
    assert wiped == "\r" + " " * len("cosmos_base 00:00") + "\r"


def test_the_waiting_line_is_not_drawn_into_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, waiting("cosmos_base", log):
        pass
    assert (tmp_path / "log").read_text() == ""


def test_one_line() -> None:
    assert one_line("a\n  b\tc\n") == "a b c"


@pytest.mark.triton
def test_generate_saves_what_is_asked_for(
    peer: "Peer", clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "world.mp4"
    tokens, report = tmp_path / "tokens.npy", tmp_path / "report.json"
    words = ["generate", "--input", clip, "--output", out, "--save-tokens", tokens, "--save-report", report]
    assert exit_code(*words, "--seed", 3, "--timeout-s", 9, "--top-p", 0.5, "--url", peer.url) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    assert out.read_bytes() == b"\0video of ok\0"
    assert np.load(tokens)[0, 0, 0] == 3
    answer = json.loads(report.read_text())
    assert (answer["seed"], answer["top_p"], answer["timeout_us"]) == (3, 0.5, 9_000_000)
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "new", "tokens.npy", "report.json"}


@pytest.mark.triton
def test_a_refused_request_exits_with_1_and_leaves_nothing(
    peer: "Peer", clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip.write_bytes(b"INVALID_ARG the media is a\npoem")
    assert exit_code("generate", "--input", clip, "--output", tmp_path / "w.mp4", "--url", peer.url) == 1
    assert capsys.readouterr() == ("", "cosmos-client: error: the media is a poem\n")
    assert list(tmp_path.iterdir()) == [clip]


@pytest.mark.triton
def test_a_deadline_exits_with_1(
    peer: "Peer", clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip.write_bytes(b"hang")
    words = ["--input", clip, "--output", tmp_path / "w.mp4", "--timeout-s", "0.5", "--url", peer.url]
    assert exit_code("generate", *words) == 1
    assert "no answer" in capsys.readouterr().err


@pytest.mark.triton
def test_a_batch_goes_on_past_what_fails(
    peer: "Peer", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name, media in {
        "a/clip.mp4": b"ok 0.4",
        "b/clip.mp4": b"ok 0.4",
        "refused.png": b"INVALID_ARG top_p 7 is not in (0, 1]",
        "dead.mp4": b"UNAVAILABLE the stage has died",
        "empty.mp4": b"",
    }.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(media)
    entries = [
        {"visual_input": "a/clip.mp4", "seed": 11},
        {"visual_input": "refused.png"},
        {"visual_input": "b/clip.mp4", "prompt": "a robot", "note": "mine"},
        {"visual_input": "dead.mp4"},
        {"visual_input": "empty.mp4"},
        {"visual_input": "absent.mp4"},
        {"visual_input": "a/clip.mp4", "seed": "eleven"},
    ]
    lines = data / "clips.jsonl"
    lines.write_text("\n".join(map(json.dumps, entries)) + "\n\nnot json\n")
    words = ["--batch-input-path", lines, "--output-folder", tmp_path / "out", "--seed", 2]
    assert exit_code("generate", *words, "--concurrency", 4, "--url", peer.url) == 1

    out, err = capsys.readouterr()
    made = [tmp_path / "out" / "clip.mp4", tmp_path / "out" / "clip-2.mp4"]
    assert sorted(out.splitlines()) == sorted(map(str, made))
    for line, reason in {
        2: "refused.png: top_p 7 is not in (0, 1]",
        4: "dead.mp4: the stage has died",
        5: "empty.mp4: " + str(data / "empty.mp4") + " is empty (0 bytes)",
        6: "absent.mp4: no such file: " + str(data / "absent.mp4"),
        7: "a/clip.mp4: seed must be a whole number, not 'eleven'",
        9: "the line is not JSON: Expecting value: line 1 column 1 (char 0)",
    }.items():
        assert err.count(f"{lines}:{line}: {reason}\n") == 1
    assert f"{lines}:3: the field 'note' means nothing here" in err
    assert "8 clips: 2 done, 6 failed" in err
    assert "8/8" in err  # the bar

    results = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [result["line"] for result in results] == [*range(1, 8), 9]  # the eighth is blank
    assert [result["status"] for result in results] == ["ok", *["failed"], "ok", *["failed"] * 5]
    assert [result["seed"] for result in results[:3]] == [11, 2, 2]
    assert results[2]["report"]["prompt"] == "a robot"
    assert [result["output"] for result in results if result["output"]] == list(map(str, made))
    assert all(result["seconds"] >= 0.4 for result in results if result["status"] == "ok")
    assert max(result["report"]["in_flight"] for result in results if result["report"]) > 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "clip.mp4",
        "clip-2.mp4",
        "results.jsonl",
    }


@pytest.mark.triton
def test_a_batch_that_succeeds_exits_with_0(peer: "Peer", clip: Path, tmp_path: Path) -> None:
    lines = tmp_path / "clips.jsonl"
    lines.write_text('{"visual_input": "clip.mp4"}\n' * 3)
    words = ["--batch_input_path", lines, "--video_save_folder", tmp_path, "--concurrency", "2"]
    assert exit_code("generate", *words, "--url", peer.url) == 0
    assert clip.read_bytes() == b"ok"  # its own folder took the videos, and it is still there
    assert {path.name for path in tmp_path.glob("*.mp4")} == {
        "clip.mp4",
        "clip-2.mp4",
        "clip-3.mp4",
        "clip-4.mp4",
    }


@pytest.mark.triton
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interruption_cancels_on_the_server_and_leaves_no_file(
    peer: "Peer", clip: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    clip.write_bytes(b"hang")
    process = start("--input", clip, "--output", tmp_path / "w.mp4", "--url", peer.url)
    peer.wait_for(lambda: len(peer.ids("started")) == 1, "the request to start")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert peer.ids("cancel") == peer.ids("started")
    peer.wait_for(lambda: peer.ids("ended") == peer.ids("started"), "the peer to drop the request")
    assert list(tmp_path.iterdir()) == [clip]


@pytest.mark.triton
def test_an_interrupted_batch_keeps_what_is_done(peer: "Peer", tmp_path: Path) -> None:
    (tmp_path / "quick.mp4").write_bytes(b"ok")
    (tmp_path / "stuck.mp4").write_bytes(b"hang")
    names = ["stuck.mp4", "quick.mp4", "stuck.mp4", "quick.mp4"]
    lines = tmp_path / "clips.jsonl"
    lines.write_text("".join(json.dumps({"visual_input": name}) + "\n" for name in names))
    folder = tmp_path / "out"
    process = start(
        "--batch-input-path", lines, "--output-folder", folder, "--concurrency", 2, "--url", peer.url
    )
    assert process.stdout
    assert process.stdout.readline() == f"{folder / 'quick.mp4'}\n"
    peer.wait_for(lambda: len(peer.ids("started")) == 3, "two stuck requests")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert len(peer.ids("cancel")) == 2
    results = recorded(folder)
    assert [result["status"] for result in results] == ["cancelled", "ok", "cancelled", "cancelled"]
    assert {path.name for path in folder.iterdir()} == {"quick.mp4", "results.jsonl"}


def recorded(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.triton
def test_the_same_command_goes_on_where_a_batch_stopped(
    peer: "Peer", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a.mp4", "b.mp4", "c.mp4"]
    for name in names:
        (tmp_path / name).write_bytes(b"ok")
    (tmp_path / "b.mp4").write_bytes(b"INTERNAL the stage has died")
    lines, folder = tmp_path / "clips.jsonl", tmp_path / "out"
    lines.write_text("".join(json.dumps({"visual_input": name}) + "\n" for name in names))
    words = ["generate", "--batch-input-path", lines, "--output-folder", folder, "--url", peer.url]
    assert exit_code(*words) == 1
    first = recorded(folder)
    assert [result["status"] for result in first] == ["ok", "failed", "ok"]

    (tmp_path / "b.mp4").write_bytes(b"ok")
    capsys.readouterr()
    assert exit_code(*words) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder / 'b.mp4'}\n"
    assert "2 of 3 clips are done already" in err
    assert "3 clips: 3 done, 0 failed" in err
    second = recorded(folder)
    assert [second[0], second[2]] == [first[0], first[2]]

    capsys.readouterr()
    assert exit_code(*words[:-1], NOBODY) == 0  # nothing is left to ask for
    assert capsys.readouterr().out == ""
    assert recorded(folder) == second

    assert exit_code(*words, "--seed", 5) == 0  # other worlds: nothing of the old ones is kept here
    assert [result["seed"] for result in recorded(folder)] == [5, 5, 5]
    assert (folder / "results.1.jsonl").read_text().count('"status": "ok"') == 3
    assert exit_code(*words, "--seed", 5, "--no-resume") == 0
    assert (folder / "results.2.jsonl").is_file()


@pytest.mark.triton
def test_a_full_queue_is_waited_for(
    peer: "Peer",
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cosmos_client._retry.PATIENCE_S", 0.3)
    monkeypatch.setattr("cosmos_client._retry._FIRST_DELAY_S", 0.1)
    clip.write_bytes(b"UNAVAILABLE the queue of 2 videos is full")
    assert exit_code("generate", "--input", clip, "--output", tmp_path / "w.mp4", "--url", peer.url) == 1
    assert len(peer.ids("started")) > 1
    assert capsys.readouterr().err == (
        "cosmos-client: the queue of 2 videos is full; asking again for up to 0.3 s\n"
        "cosmos-client: error: the queue of 2 videos is full\n"
    )


@pytest.mark.triton
def test_a_dash_is_stdout(peer: "Peer", clip: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    words = ["--input", clip, "--output", "-", "--save-report", report, "--url", peer.url]
    process = start(*words, text=False)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"\0video of ok\0", b"")
    assert json.loads(report.read_text())["seed"] == 0
    assert not (Path.cwd() / "-").exists()


@pytest.mark.triton
@pytest.mark.parametrize("output", ["-", "w.mp4"])
def test_a_stdout_that_takes_nothing_is_said(peer: "Peer", clip: Path, tmp_path: Path, output: str) -> None:
    output = output if output == "-" else str(tmp_path / output)
    with open("/dev/full", "wb") as full:  # its every write fails: no space left
        process = start("--input", clip, "--output", output, "--url", peer.url, stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == "cosmos-client: error: cannot write stdout: No space left on device\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with _signals_as_exit():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_without_a_stderr_nothing_is_said_on_stdout(clip: Path, tmp_path: Path) -> None:
    line = f'exec "{sys.executable}" -m cosmos_client generate --input {clip} --output {tmp_path}/w.mp4'
    done = subprocess.run(f"{line} --url {NOBODY} 2>&-", shell=True, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def start(*words: object, stdout: Any = subprocess.PIPE, text: bool = True) -> "subprocess.Popen[Any]":
    line = [sys.executable, "-m", "cosmos_client", "generate", *map(str, words)]
    return subprocess.Popen(line, stdout=stdout, stderr=subprocess.PIPE, text=text)


@pytest.mark.triton
def test_status_prints_a_table_or_json(peer: "Peer", capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", "--url", peer.url) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0][0] == f"{peer.url}:"
    assert ["cosmos_base", "ensemble", "ready"] in table
    assert ["ar_sampler", "stage", "ready"] in table
    absent = next(line for line in table if line[0] == "cosmos_video2world_fast")
    assert absent[1:4] == ["ensemble", "NOT", "READY:"]
    assert exit_code("status", "--json", "--url", peer.url) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ready"] is True
    assert {model["name"] for model in answer["models"] if model["ready"]} >= {"cosmos_base", "world"}
