"""`cosmos-client`: a thin skin over `CosmosClient`.

What was made goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a request failed,
2 wrong usage, 130 interrupted (143 terminated).
"""

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cosmos_client._arguments import (
    PROGRAM,
    REFERENCE_FOLDER,
    REFERENCE_NAME,
    RESULTS_NAME,
    build_parser,
    dashed,
)
from cosmos_client._batch import OPTIONS, Clip, name_outputs, read_lines, run_batch
from cosmos_client._client import CosmosClient
from cosmos_client._contract import choose_model
from cosmos_client._errors import CosmosClientError, UsageError
from cosmos_client._files import atomic_file, make_folder, prepare_output
from cosmos_client._progress import Waiting, batch_bar, one_line
from cosmos_client._request import read_file
from cosmos_client._status import ServerStatus
from cosmos_client._world import World

DONE, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_VIDEO_SUFFIXES = (".mp4",)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(_generate, _status).parse_args([dashed(word) for word in words])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be valid UTF-8
    try:
        with _termination_as_exit():
            code: int = args.command(args)
            return code
    except KeyboardInterrupt:
        _complain("interrupted; what was in flight is cancelled")
        return INTERRUPTED
    except UsageError as error:
        _complain(f"error: {error}")
        return WRONG_USAGE
    except (CosmosClientError, OSError) as error:
        _complain(f"error: {error}")
        return FAILED


def _generate(args: argparse.Namespace) -> int:
    if args.batch_input_path is not None:
        return _generate_many(args)
    if args.input is None:
        raise UsageError("say what to start from: --input FILE, or --batch-input-path FILE for many clips")
    return _generate_one(args)


def _generate_one(args: argparse.Namespace) -> int:
    _refuse(args, "output_folder", reason="belongs to a batch: use --output")
    output = _single_output(args)
    written = [path for path in (output, args.save_tokens, args.save_report) if path is not None]
    _refuse_equal([args.input, *written])
    check_input_type(args.input_type, args.input, args.prompt)
    model = _model(args)
    media = read_file(args.input)
    for path in written:
        prepare_output(path)
    _hint_suffix(args.input, str(args.input))
    with _client(args) as client:
        with Waiting(f"{model} at {args.url}, Ctrl-C cancels:", sys.stderr):
            world = client.generate(media, model=model, **_options(args))
        world.save(output)
    if args.save_tokens is not None:
        with atomic_file(args.save_tokens) as file:
            np.save(file, world.tokens)
    if args.save_report is not None:
        with atomic_file(args.save_report) as file:
            file.write(json.dumps(world.report, indent=2).encode() + b"\n")
    print(output)
    return DONE


def _generate_many(args: argparse.Namespace) -> int:
    for name in ("input", "output", "save_tokens", "save_report", "video_save_name"):
        _refuse(args, name, reason="belongs to a single clip, not to a batch")
    folder = args.output_folder or args.video_save_folder
    if folder is None:
        raise UsageError("say where the videos go: --output-folder DIR")
    _model(args)  # a name that no clip could use is one mistake, not one for every clip
    source, results = args.batch_input_path, folder / RESULTS_NAME
    lines = read_lines(source, _options(args))
    _refuse_equal([source, results])
    make_folder(folder)
    prepare_output(results)
    clips = [line for line in lines if isinstance(line, Clip)]
    _hint_fields(source, clips)

    begin = time.monotonic()
    with _client(args) as client:
        client.status()  # one sentence now, if no server answers, rather than one for every clip
        with batch_bar(len(lines), source) as on_result:
            done = run_batch(
                lines,
                partial(_generate_clip, client, args),
                outputs=name_outputs(clips, folder),
                results=results,
                concurrency=args.concurrency,
                on_result=on_result,
                stop=client.close,
            )
    good = sum(result.status == "ok" for result in done)
    _complain(
        f"{len(done)} clips: {good} done, {len(done) - good} failed, "
        f"{time.monotonic() - begin:.1f} s; {results} has the details"
    )
    return DONE if good == len(done) else FAILED


def _generate_clip(client: CosmosClient, args: argparse.Namespace, clip: Clip, request_id: str) -> World:
    check_input_type(args.input_type, clip.path, clip.options.get("prompt"))
    return client.generate(
        clip.path,
        model=args.model,
        disable_diffusion_decoder=args.disable_diffusion_decoder,
        request_id=request_id,
        **clip.options,
    )


def _status(args: argparse.Namespace) -> int:
    try:
        with _client(args) as client:
            status = client.status(args.timeout_s)
    except UsageError:
        raise
    except CosmosClientError as error:
        if args.json:
            nothing = {"url": args.url, "server": None, "ready": False, "models": [], "error": str(error)}
            print(json.dumps(nothing, indent=2))
        raise
    print(
        json.dumps(asdict(status) | {"ready": status.ready}, indent=2) if args.json else status_table(status)
    )
    return DONE if status.ready else FAILED


def status_table(status: ServerStatus) -> str:
    """The models of a server, one a line, ensembles first."""
    rows = [("MODEL", "KIND", "STATE")] + [
        (
            model.name,
            "ensemble" if model.is_ensemble else "stage",
            "ready" if model.ready else f"NOT READY: {model.detail}",
        )
        for model in status.models
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    table = [f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {state}" for name, kind, state in rows]
    return "\n".join([f"{status.url}: {status.server}", *table])


def check_input_type(input_type: str | None, media: Path, prompt: str | None) -> None:
    """Holds a request against the reference's `--input_type`; raises `UsageError`."""
    if input_type is None:
        return
    if input_type.startswith("text_and_") and prompt is None:
        raise UsageError(f"input type {input_type} needs a prompt")
    if not input_type.startswith("text_and_") and prompt is not None:
        raise UsageError(f"input type {input_type} takes no prompt: use text_and_{input_type}")
    wanted = input_type.removeprefix("text_and_")
    other, suffixes = ("image", _IMAGE_SUFFIXES) if wanted == "video" else ("video", _VIDEO_SUFFIXES)
    if media.suffix.lower() in suffixes:
        raise UsageError(f"input type {input_type} does not fit {media}, which is named like {other}s are")


def _client(args: argparse.Namespace) -> CosmosClient:
    return CosmosClient(
        args.url,
        args.timeout_s,
        tls=args.tls,
        root_certificates=args.tls_ca,
        private_key=args.tls_key,
        certificate_chain=args.tls_cert,
    )


def _model(args: argparse.Namespace) -> str:
    return choose_model(args.model, args.prompt, disable_diffusion_decoder=args.disable_diffusion_decoder)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}


def _single_output(args: argparse.Namespace) -> Path:
    if args.video_save_name is None and args.video_save_folder is None:
        if args.output is None:
            raise UsageError("say where the video goes: --output FILE")
        output: Path = args.output
        return output
    if args.output is not None:
        raise UsageError("--output and --video-save-name or --video-save-folder say the same thing twice")
    name = (args.video_save_name or REFERENCE_NAME).removesuffix(".mp4")
    return (args.video_save_folder or Path(REFERENCE_FOLDER)) / f"{name}.mp4"


def _refuse(args: argparse.Namespace, name: str, *, reason: str) -> None:
    if getattr(args, name) is not None:
        raise UsageError(f"--{name.replace('_', '-')} {reason}")


def _refuse_equal(paths: Sequence[Path]) -> None:
    """No file may be written over another of the same command, the input above all."""
    seen: set[str] = set()
    for path in paths:
        if (real := os.path.realpath(path)) in seen:
            raise UsageError(f"{path} is named twice: it would be written over")
        seen.add(real)


def _hint_suffix(media: Path, name: str) -> None:
    if media.suffix.lower() not in _IMAGE_SUFFIXES + _VIDEO_SUFFIXES:
        _complain(f"{name} is not named like a png, jpg, jpeg, webp or mp4 file; it is sent as it is")


def _hint_fields(source: Path, clips: Sequence[Clip]) -> None:
    for clip in clips:
        _hint_suffix(clip.path, f"{source}:{clip.line}: {clip.visual_input}")
        for name in clip.unknown:
            _complain(f"{source}:{clip.line}: the field {name!r} means nothing here and is left out")


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """SIGTERM (`docker stop`, `timeout`) unwinds like Ctrl-C, so that requests are cancelled."""

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _complain(message: str) -> None:
    print(f"{PROGRAM}: {one_line(message)}", file=sys.stderr)
