"""The reference's command line: its spelling, its options, its habits."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cosmos_client._reference import as_typed, check_input_type, dashed, where_set
from cosmos_client.cli import main

if TYPE_CHECKING:
    from conftest import Peer


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--top_p", "--top-p"),
        ("--video_save_name=my_world", "--video-save-name=my_world"),
        ("my_clip.mp4", "my_clip.mp4"),
        ("-_", "-_"),
    ],
)
def test_underscores_in_options_are_dashes(word: str, expected: str) -> None:
    assert dashed(word) == expected


@pytest.mark.parametrize(
    ("input_type", "name", "prompt", "fits"),
    [
        (None, "a.txt", None, True),
        ("image", "a.JPG", None, True),
        ("image", "a.mp4", None, False),
        ("video", "a.mp4", None, True),
        ("video", "a.webp", None, False),
        ("video", "a.mp4", "a robot", False),
        ("text_and_image", "a.png", "a robot", True),
        ("text_and_video", "a.mp4", None, False),
        ("text_and_video", "a", "a robot", True),  # a name that tells nothing contradicts nothing
    ],
)
def test_input_type_is_held_against_what_is_given(
    input_type: str | None, name: str, prompt: str | None, fits: bool
) -> None:
    if fits:
        check_input_type(input_type, Path(name), prompt)
    else:
        with pytest.raises(Exception, match="input type"):
            check_input_type(input_type, Path(name), prompt)


@pytest.mark.parametrize(
    ("message", "words", "expected"),
    [
        ("argument --top-p: invalid", ["--top_p", "x"], "argument --top_p: invalid"),
        ("argument --top-p: invalid", ["--top-p", "x"], "argument --top-p: invalid"),
        (
            "argument --input/--input-image-or-video-path: expected one argument",
            ["--input_image_or_video_path"],
            "argument --input_image_or_video_path: expected one argument",
        ),
        ("--input-type is not --input", ["--input_type=x"], "--input_type is not --input"),
        ("use --output", ["--video_save_name=a"], "use --output"),
    ],
)
def test_an_option_is_spelled_as_it_was_typed(message: str, words: list[str], expected: str) -> None:
    assert as_typed(message, words) == expected


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("--top_p x", "--top_p"),
        ("--input_image_or_video_path", "--input_image_or_video_path"),
        ("--num_input_frames 5", "--num_input_frames"),
        ("--no_such_option", "--no_such_option"),
        ("--batch_input_path c.jsonl --output_folder d --video_save_name w", "--video_save_name"),
    ],
)
def test_complaints_spell_it_so(line: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", *line.split()]) == 2
    err = capsys.readouterr().err
    assert option in err
    assert dashed(option) not in err
    assert err.count("\n") == 1


def test_options_of_the_server_are_told_where_they_are_set() -> None:
    words = "--checkpoint_dir checkpoints --offload_tokenizer --offload-ar-model --num_gpus=8 --seed 3"
    assert where_set(words.split()) == (
        "set on the server, and ignored here: --checkpoint_dir (cosmos-triton serve --checkpoint-dir); "
        "--offload_tokenizer, --offload-ar-model (COSMOS_RESIDENCY=offload in the server's environment); "
        "--num_gpus (one server, one GPU)"
    )
    assert where_set(["--seed", "3"]) is None


# After the script's name, as on the pages of examples/.
PAGES = {
    "base": "--checkpoint_dir checkpoints --ar_model_dir Cosmos-Predict1-4B --input_type video "
    "--input_image_or_video_path clip.mp4 --top_p 0.8 --temperature 1.0 --offload_diffusion_decoder "
    "--offload_tokenizer --video_save_name autoregressive-4b",
    "base, 8 GPUs": "--num_gpus 8 --checkpoint_dir checkpoints --ar_model_dir Cosmos-Predict1-4B "
    "--input_type video --input_image_or_video_path clip.mp4 --top_p 0.8 --temperature 1.0 "
    "--offload_diffusion_decoder --offload_tokenizer --video_save_name autoregressive-4b-8gpu",
    "base, batch": "--checkpoint_dir checkpoints --ar_model_dir Cosmos-Predict1-4B "
    "--batch_input_path base.jsonl --top_p 0.8 --temperature 1.0 --offload_diffusion_decoder "
    "--offload_tokenizer --video_save_folder autoregressive-4b-batch",
    "video2world": "--checkpoint_dir checkpoints --ar_model_dir Cosmos-Predict1-5B-Video2World "
    "--input_type text_and_video --input_image_or_video_path clip.mp4 --prompt 'A video recorded from a "
    "moving vehicle.' --top_p 0.7 --temperature 1.0 --offload_diffusion_decoder --offload_tokenizer "
    "--video_save_name autoregressive-video2world-5b",
    "every option": "--input_image_or_video_path clip.mp4 --video_save_folder there/ --video_save_name w "
    "--num_input_frames 9 --seed 0 --num_gpus 1 --disable_diffusion_decoder --offload_guardrail_models "
    "--offload_ar_model --offload_text_encoder_model --disable_guardrail",
}
MADE = {
    "base": "outputs/autoregressive-4b.mp4",
    "base, 8 GPUs": "outputs/autoregressive-4b-8gpu.mp4",
    "base, batch": "autoregressive-4b-batch/clip.mp4",
    "video2world": "outputs/autoregressive-video2world-5b.mp4",
    "every option": "there/w.mp4",
}


@pytest.mark.triton
@pytest.mark.parametrize("page", PAGES)
def test_the_references_calls_run_as_they_are_printed(
    page: str,
    peer: "Peer",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"ok")
    (tmp_path / "base.jsonl").write_text('{"visual_input": "clip.mp4"}\n')
    assert main(["generate", *shlex.split(PAGES[page]), "--url", peer.url]) == 0
    out, err = capsys.readouterr()
    assert out == MADE[page] + "\n"
    assert (tmp_path / MADE[page]).read_bytes() == b"\0video of ok\0"
    assert err.count("set on the server, and ignored here: ") == 1


@pytest.mark.triton
@pytest.mark.parametrize("batch", [False, True])
def test_an_image_is_one_frame_of_context_whatever_is_asked_for(
    batch: bool,
    peer: "Peer",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"ok")
    (tmp_path / "list.jsonl").write_text('{"visual_input": "photo.png", "num_input_frames": 9}\n')
    one = ["--input", "photo.png", "--output", "w.mp4", "--num_input_frames", "9", "--save-report", "r.json"]
    many = ["--batch-input-path", "list.jsonl", "--output-folder", "out"]
    assert main(["generate", "--input_type", "image", *(many if batch else one), "--url", peer.url]) == 0
    written = Path("out/results.jsonl" if batch else "r.json")
    answer = json.loads(written.read_text())
    assert (answer["report"] if batch else answer)["num_input_frames"] == 1
    assert "an image is one frame of context, as in cosmos-predict1, not 9" in capsys.readouterr().err


@pytest.mark.triton
def test_the_references_names_do_the_same(
    peer: "Peer", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"ok")
    flags = "--input_type text_and_video --video_save_name w --top_p 0.75 --num_input_frames 9 --seed 4"
    more = "--temperature 1.0 --save_report report.json"
    words = [*flags.split(), *more.split(), "--prompt", "a robot", "--input_image_or_video_path", clip]
    assert main(["generate", *map(str, words), "--url", peer.url]) == 0
    assert (tmp_path / "outputs" / "w.mp4").is_file()
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["prompt"], report["top_p"], report["num_input_frames"]) == ("a robot", 0.75, 9)
    words = ["--video_save_folder", "there", "--disable_diffusion_decoder", "--input", clip]
    assert main(["generate", *map(str, words), "--url", peer.url]) == 0
    assert (tmp_path / "there" / "output.mp4").is_file()
