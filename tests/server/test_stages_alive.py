"""Dead, hanging and ended stage processes, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cosmos_triton.server.stages_alive import Watch, stage_processes

STAGE = """
import sys, time
from pathlib import Path
from cosmos_triton.serving.heartbeat import Heartbeat
beat = Heartbeat("ar_sampler", Path(sys.argv[1]))
beat.holds("one"); beat.holds("two"); beat.answered("one"); beat.holds("../outside"); beat.holds("")
print("up", flush=True)
sys.stdin.readline()
beat.stop()
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", STAGE, str(tmp_path)], stdin=-1, stdout=-1, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def settled(watch: Watch, seconds: float = 5.0) -> list[str]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if dead := watch.round():
            return [f"{process.stage} {sorted(process.holds)}" for process in dead]
        time.sleep(0.05)
    return []


def test_a_live_stage_is_left_alone_and_one_that_ends_is_no_death(
    stage: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    process, watch = stage(), Watch(tmp_path, hangs_after_s=2)
    assert settled(watch, 1) == []
    process.communicate("end\n")
    assert list(stage_processes(tmp_path)) == []
    assert settled(watch, 0.3) == []


def test_a_killed_stage_is_found_with_what_it_held(
    stage: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    process, watch = stage(), Watch(tmp_path, hangs_after_s=60)
    process.kill()
    assert settled(watch) == ["ar_sampler ['two']"]


def test_a_stage_that_hangs_is_ended(stage: Callable[[], "subprocess.Popen[str]"], tmp_path: Path) -> None:
    process, watch = stage(), Watch(tmp_path, hangs_after_s=1)
    watch.round()
    process.send_signal(signal.SIGSTOP)
    assert settled(watch) == ["ar_sampler ['two']"]
    assert process.wait(5) == -signal.SIGKILL


def test_after_a_pause_of_the_whole_machine_nobody_is_ended(
    stage: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    process, watch = stage(), Watch(tmp_path, hangs_after_s=1)
    watch.round()
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # no rounds meanwhile, as if this process had been stopped too
    process.send_signal(signal.SIGCONT)
    assert watch.round() == []
    time.sleep(0.7)
    assert watch.round() == []


def test_a_stage_ends_with_its_server(tmp_path: Path) -> None:
    """The server's place is taken by a shell that starts the stage and is killed."""
    shell = subprocess.Popen(
        ["bash", "-c", f"{sys.executable} -c '{STAGE}' {tmp_path} <&3 & wait"],
        stdin=subprocess.DEVNULL,
        stdout=-1,
        text=True,
        pass_fds=(),
        preexec_fn=lambda: os.dup2(os.open("/dev/zero", os.O_RDONLY), 3),
        close_fds=False,
    )
    assert shell.stdout is not None
    assert shell.stdout.readline() == "up\n"
    (process,) = stage_processes(tmp_path)
    shell.kill()
    shell.wait()
    deadline = time.monotonic() + 5
    while process.exists and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists
    shell.stdout.close()
