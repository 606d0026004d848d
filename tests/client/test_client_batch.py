"""Clips sent some at a time and the record of what became of them, without a server."""

import errno
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosmos_client import (
    DeadlineExceeded,
    NotAdmitted,
    NotReached,
    OutputError,
    RequestCancelled,
    RequestRefused,
    ServerStopping,
    ServerUnavailable,
    World,
)
from cosmos_client._batch import BatchStopped, run_batch
from cosmos_client._clips import BadLine, Clip, name_outputs
from cosmos_client._results import ClipResult, read_earlier, set_aside
from cosmos_client._retry import ask_again


def a_clip(line: int, visual_input: str) -> Clip:
    return Clip(line, visual_input, Path(visual_input), {})


def clips(count: int) -> list[Clip]:
    return [a_clip(n, f"{n}.mp4") for n in range(1, count + 1)]


def a_world(clip: Clip, request_id: str) -> World:
    seed = clip.options.get("seed", 0)
    return World(clip.visual_input.encode(), np.zeros((5, 1, 1), np.int32), {"seed": seed}, request_id)


def run(
    folder: Path,
    lines: Sequence[Clip | BadLine],
    generate: Callable[[Clip, str], World],
    on_result: Callable[[ClipResult], None] = lambda result: None,
    stop: Callable[[], None] = lambda: None,
    concurrency: int = 2,
    on_wait: Callable[[str], None] = lambda text: None,
) -> list[ClipResult]:
    clips = [line for line in lines if isinstance(line, Clip)]
    return run_batch(
        lines,
        generate,
        outputs=name_outputs(clips, folder),
        results=folder / "results.jsonl",
        concurrency=concurrency,
        on_result=on_result,
        on_wait=on_wait,
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


def test_an_interruption_tells_what_was_finished_meanwhile(tmp_path: Path) -> None:
    stopped = threading.Event()
    told: list[ClipResult] = []

    def generate(clip: Clip, request_id: str) -> World:
        if clip.line == 2:
            assert stopped.wait(10)  # finishes after the interruption, before anybody asks
        if clip.line > 2:
            assert stopped.wait(10)
            raise RequestCancelled("the request was cancelled")
        return a_world(clip, request_id)

    def on_result(result: ClipResult) -> None:
        if not stopped.is_set():  # before its path is out
            raise KeyboardInterrupt
        told.append(result)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, clips(5), generate, on_result, stopped.set, concurrency=3)
    assert [entry["status"] for entry in recorded(tmp_path)] == ["ok", "ok", *["cancelled"] * 3]
    assert {result.output for result in told} == {str(tmp_path / "1.mp4"), str(tmp_path / "2.mp4")}


def test_a_video_that_was_saved_is_told_even_if_the_record_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: object) -> None:
        raise OutputError("cannot write results.jsonl: No space left on device", errno.ENOSPC)

    monkeypatch.setattr("cosmos_client._results.Record._write", no_room)
    told: list[ClipResult] = []
    with pytest.raises(OutputError, match=r"results\.jsonl"):
        run(tmp_path, clips(1), a_world, told.append)
    assert [result.output for result in told] == [str(tmp_path / "1.mp4")]


def test_a_full_disk_ends_the_batch_and_what_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    sent: list[int] = []
    told: list[int] = []

    def generate(clip: Clip, request_id: str) -> World:
        sent.append(clip.line)
        if clip.line == 3:
            assert stopped.wait(10)
            raise RequestCancelled("the request was cancelled")
        return a_world(clip, request_id)

    def save(world: World, path: Path) -> None:
        if path.name == "2.mp4":
            raise OutputError(f"cannot write {path}: No space left on device", errno.ENOSPC)

    monkeypatch.setattr(World, "save", save)
    with pytest.raises(BatchStopped, match=r"cannot write .*2\.mp4: No space left") as caught:
        run(tmp_path, clips(20), generate, lambda result: told.append(result.line), stopped.set)
    assert stopped.is_set()
    assert len(sent) <= 4  # two at a time, and the second is the one that ended it
    assert told == [1]
    statuses = [result.status for result in caught.value.results]
    assert statuses == ["ok", "failed", *["cancelled"] * 18]
    assert [entry["status"] for entry in recorded(tmp_path)] == statuses


@pytest.mark.parametrize(
    "error", [NotReached("no server answers at x:1"), ServerStopping("the server at x:1 is stopping")]
)
def test_a_server_that_is_gone_ends_the_batch_but_not_what_it_still_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ServerUnavailable
) -> None:
    monkeypatch.setattr("cosmos_client._batch.RECONNECT_S", 0.0)
    gone = threading.Event()
    stops: list[bool] = []
    told: list[int] = []

    def generate(clip: Clip, request_id: str) -> World:
        if clip.line == 1:
            assert gone.wait(10)
            time.sleep(0.1)
            return a_world(clip, request_id)
        gone.set()
        raise error

    with pytest.raises(BatchStopped, match=str(error)) as caught:
        run(
            tmp_path,
            clips(50),
            generate,
            lambda result: told.append(result.line),
            lambda: stops.append(True),
        )
    assert told == [1]
    assert not stops
    assert [r.status for r in caught.value.results] == ["ok", "failed", *["cancelled"] * 48]


def test_only_what_was_not_admitted_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosmos_client._retry._FIRST_DELAY_S", 0.01)
    failures: dict[int, list[Exception]] = {
        1: [NotAdmitted("the queue of 2 videos is full")] * 3,
        2: [ServerUnavailable("the stage has died")],
        3: [NotReached("no server answers")],
        4: [DeadlineExceeded("no answer")],
    }
    asked: list[tuple[int, str]] = []
    waits: list[str] = []

    def generate(clip: Clip, request_id: str) -> World:
        asked.append((clip.line, request_id))
        if failures[clip.line]:
            raise failures[clip.line].pop()
        return a_world(clip, request_id)

    results = run(tmp_path, clips(4), generate, on_wait=waits.append)
    assert [result.status for result in results] == ["ok", "failed", "ok", "failed"]
    assert [[line for line, _ in asked].count(line) for line in (1, 2, 3, 4)] == [4, 1, 2, 1]
    assert sorted(waits) == [
        "1.mp4: the queue of 2 videos is full; asking again for up to 60 s",
        "3.mp4: no server answers; asking again for up to 10 s",
    ]


def test_asking_again_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    delays: list[float] = []

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds
        delays.append(seconds)

    def call() -> World:
        raise NotAdmitted("the queue is full")

    monkeypatch.setattr("cosmos_client._retry.time.monotonic", lambda: now)
    with pytest.raises(NotAdmitted):
        ask_again(call, reconnect_s=1.0, on_wait=lambda text: None, wait=wait)
    assert sum(delays) == pytest.approx(60)
    assert len(delays) < 12
    assert delays[0] < delays[2] < delays[3]


def earlier(
    folder: Path, lines: Sequence[Clip | BadLine], *, resume: bool = True
) -> tuple[dict[int, ClipResult], bool]:
    outputs = name_outputs([line for line in lines if isinstance(line, Clip)], folder)
    found = read_earlier(folder / "results.jsonl", lines, outputs, resume=resume)
    return found.kept, found.forgotten


def test_nothing_is_kept_where_nothing_was_made(tmp_path: Path) -> None:
    assert earlier(tmp_path, clips(2)) == ({}, False)


def test_what_an_earlier_run_made_is_kept_and_the_rest_is_sent(tmp_path: Path) -> None:
    def failing(clip: Clip, request_id: str) -> World:
        if clip.line == 2:
            raise RequestRefused("no")
        return a_world(clip, request_id)

    first = run(tmp_path, clips(3), failing)
    kept, forgotten = earlier(tmp_path, clips(3))
    assert kept == {1: first[0], 3: first[2]}
    assert not forgotten
    sent: list[int] = []

    def generate(clip: Clip, request_id: str) -> World:
        assert [entry["status"] for entry in recorded(tmp_path)] == ["ok", "failed", "ok"]
        sent.append(clip.line)
        return a_world(clip, request_id)

    lines = clips(3)
    again = run_batch(
        lines,
        generate,
        outputs=name_outputs(lines, tmp_path),
        results=tmp_path / "results.jsonl",
        concurrency=2,
        on_result=lambda result: None,
        on_wait=lambda text: None,
        stop=lambda: None,
        kept=kept,
    )
    assert sent == [2]
    assert (again[0], again[2]) == (first[0], first[2])
    assert [entry["request_id"] for entry in recorded(tmp_path)] == [r.request_id for r in again]


def test_clips_are_known_by_what_was_asked_and_not_by_their_line(tmp_path: Path) -> None:
    first = run(tmp_path, clips(2), a_world)
    moved = [a_clip(1, "new.mp4"), a_clip(4, "2.mp4"), a_clip(5, "1.mp4")]
    kept, forgotten = earlier(tmp_path, moved)
    assert {line: result.request_id for line, result in kept.items()} == {
        4: first[1].request_id,
        5: first[0].request_id,
    }
    assert not forgotten


def test_other_options_a_lost_video_or_a_shorter_list_are_not_kept(tmp_path: Path) -> None:
    run(tmp_path, clips(3), a_world)
    assert earlier(tmp_path, clips(2))[1]  # the third would be forgotten
    assert earlier(tmp_path, clips(3), resume=False) == ({}, True)
    other_seed = [replace(clip, options={"seed": 5}) for clip in clips(3)]
    assert earlier(tmp_path, other_seed) == ({}, True)
    (tmp_path / "2.mp4").unlink()
    assert sorted(earlier(tmp_path, clips(3))[0]) == [1, 3]


@pytest.mark.parametrize("text", ["not json", "[]", '{"line": 1, "status": "ok"}'])
def test_a_record_that_cannot_be_understood_is_not_thrown_away(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.jsonl").write_text(text + "\n")
    assert earlier(tmp_path, clips(1)) == ({}, True)
    (tmp_path / "results.1.jsonl").touch()
    assert set_aside(tmp_path / "results.jsonl") == tmp_path / "results.2.jsonl"
    assert (tmp_path / "results.2.jsonl").read_text() == text + "\n"


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
