"""The client's command line against the real server, as a user would run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_triton.server.launch import Server

pytestmark = pytest.mark.triton


def cosmos_client(server: Server, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "cosmos_client", command, "--url", server.grpc_url, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=180)


def test_generate_writes_the_video_and_prints_its_path(server: Server, clip: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip)
    world = tmp_path / "world.mp4"
    done = cosmos_client(server, "generate", "--input", str(tmp_path / "clip.mp4"), "--output", str(world))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(world)
    assert world.read_bytes()[4:8] == b"ftyp"


def test_the_references_flags_are_understood(server: Server, clip: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip)
    flags = f"--input_type video --input_image_or_video_path {tmp_path}/clip.mp4 --video_save_name w"
    more = f"--video_save_folder {tmp_path}/out --top_p 0.9 --num_input_frames 9 --disable_diffusion_decoder"
    done = cosmos_client(server, "generate", *flags.split(), *more.split(), "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "w.mp4").is_file()


def test_a_batch_goes_on_past_a_bad_clip(server: Server, clip: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.mp4").write_bytes(clip)
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    lines = [{"visual_input": name} for name in ("good.mp4", "bad.mp4", "good.mp4", "absent.mp4")]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = cosmos_client(
        server,
        "generate",
        "--batch-input-path",
        str(tmp_path / "clips.jsonl"),
        "--output-folder",
        str(tmp_path / "out"),
        "--concurrency",
        "4",
        "--disable_diffusion_decoder",
    )
    assert done.returncode == 1, done.stderr
    results = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len(results) == 4
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
    assert "bad.mp4" in done.stderr
    assert "absent.mp4" in done.stderr


def test_a_refused_request_exits_with_1_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"text")
    done = cosmos_client(
        server, "generate", "--input", str(tmp_path / "bad.png"), "--output", str(tmp_path / "w.mp4")
    )
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.png"]
    assert "Traceback" not in done.stderr


def test_status_lists_the_ensembles(server: Server) -> None:
    done = cosmos_client(server, "status")
    assert done.returncode == 0, done.stderr
    for name in ("cosmos_base", "cosmos_video2world_fast", "ar_sampler"):
        assert name in done.stdout
