"""`cosmos-client`: a thin skin over `CosmosClient`.

What was made goes to stdout, everything else to stderr. Exit codes: 0 done, 1 a request failed,
2 wrong usage, 130 interrupted (129 hung up, 143 terminated).
"""

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from cosmos_client._arguments import PROGRAM, RESULTS_NAME, STDOUT, build_parser
from cosmos_client._batch import BatchStopped, run_batch
from cosmos_client._client import CosmosClient
from cosmos_client._clips import BadLine, Clip, name_outputs, read_clips
from cosmos_client._errors import CosmosClientError, UsageError, cannot_write, reason_of
from cosmos_client._files import atomic_file, make_folder, prepare_output
from cosmos_client._options import OPTIONS
from cosmos_client._progress import batch_bar, one_line, waiting
from cosmos_client._reference import (
    DEFAULT_FOLDER,
    DEFAULT_NAME,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    as_typed,
    check_input_type,
    dashed,
    takes_one_frame,
    where_set,
)
from cosmos_client._request import choose_model, read_file
from cosmos_client._results import OK, ClipResult, read_earlier, set_aside
from cosmos_client._retry import ask_again
from cosmos_client._status import ServerStatus
from cosmos_client._world import World

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
_SIGNALLED = 128  # and the signal's number: 129 hung up, 143 terminated


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines are said here in one sentence
    try:
        args = build_parser(_generate, _status).parse_args([dashed(word) for word in words])
        if (note := where_set(words)) is not None:
            _say(note)
        with _signals_as_exit():
            code: int = args.command(args)
            return code
    except KeyboardInterrupt:
        _say("interrupted; what was in flight is cancelled")
        return INTERRUPTED
    except UsageError as error:
        _say(f"error: {as_typed(str(error), words)}")
        return WRONG_USAGE
    except CosmosClientError as error:
        _say(f"error: {error}")
        return FAILED
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        _say(f"error: {name}{reason_of(error)}")
        return FAILED
    finally:
        _flush_or_drop(sys.stdout)
        _flush_or_drop(sys.stderr)


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
    model, options = _model(args), _as_the_reference_does(args.input_type, _options(args))
    media = read_file(args.input)
    for path in written:
        _prepare(path)
    _hint_suffix(args.input, str(args.input))
    with _client(args) as client, waiting(f"{model} at {args.url}, Ctrl-C cancels:", sys.stderr):
        world = ask_again(
            lambda: client.generate(media, model=model, **options), reconnect_s=0.0, on_wait=_say
        )
    _save(output, world.video)
    if args.save_tokens is not None:
        _save(args.save_tokens, _npy(world))
    if args.save_report is not None:
        _save(args.save_report, json.dumps(world.report, indent=2).encode() + b"\n")
    if STDOUT not in written:
        _print(str(output))
    return DONE


def _generate_many(args: argparse.Namespace) -> int:
    for name in ("input", "output", "save_tokens", "save_report", "video_save_name"):
        _refuse(args, name, reason="belongs to a single clip, not to a batch")
    folder = args.output_folder or args.video_save_folder
    if folder is None:
        raise UsageError("say where the videos go: --output-folder DIR")
    _model(args)  # a name that no clip could use is one mistake, not one for every clip
    source, results = args.batch_input_path, folder / RESULTS_NAME
    lines = _lines(args)
    _refuse_equal([source, results])
    make_folder(folder)
    prepare_output(results)
    clips = [line for line in lines if isinstance(line, Clip)]
    _hint_fields(source, clips)
    outputs = name_outputs(clips, folder)
    earlier = read_earlier(results, lines, outputs, resume=args.resume)
    if earlier.kept:
        _say(f"{len(earlier.kept)} of {len(lines)} clips are done already, --no-resume makes them again")

    begin = time.monotonic()
    with _client(args) as client:
        if len(earlier.kept) < len(lines):
            client.status()  # one sentence now, if no server answers, rather than one for every clip
        if earlier.forgotten:
            _say(f"{results} is of other clips or options, and is kept as {set_aside(results)}")
        with batch_bar(len(lines) - len(earlier.kept), source) as on_result:
            done = _run(
                partial(
                    run_batch,
                    lines,
                    partial(_generate_clip, client, args),
                    outputs=outputs,
                    results=results,
                    concurrency=args.concurrency,
                    on_result=on_result,
                    on_wait=_say,
                    stop=client.close,
                    kept=earlier.kept,
                )
            )
    good = sum(result.status == OK for result in done)
    _say(
        f"{len(done)} clips: {good} done, {len(done) - good} failed, "
        f"{time.monotonic() - begin:.1f} s; {results} has the details"
    )
    return DONE if good == len(done) else FAILED


def _run(batch: Callable[[], list[ClipResult]]) -> list[ClipResult]:
    """The results of a batch, also of one that had to stop, which is told."""
    try:
        return batch()
    except BatchStopped as stopped:
        _say(f"error: {stopped.reason}; the batch stops, and the same command goes on from there")
        return stopped.results


def _lines(args: argparse.Namespace) -> list[Clip | BadLine]:
    """The list of the batch, each clip with the options that hold for it."""
    common: dict[str, Any] = {**_options(args)}
    if args.model is not None:
        common["model"] = args.model
    if args.disable_diffusion_decoder:
        common["disable_diffusion_decoder"] = True
    common = _as_the_reference_does(args.input_type, common)
    return [
        replace(line, options=_as_the_reference_does(args.input_type, line.options))
        if isinstance(line, Clip)
        else line
        for line in read_clips(args.batch_input_path, common)
    ]


def _generate_clip(client: CosmosClient, args: argparse.Namespace, clip: Clip, request_id: str) -> World:
    check_input_type(args.input_type, clip.path, clip.options.get("prompt"))
    return client.generate(clip.path, request_id=request_id, **clip.options)


def _status(args: argparse.Namespace) -> int:
    try:
        with _client(args) as client:
            status = client.status(args.timeout_s)
    except UsageError:
        raise
    except CosmosClientError as error:
        if args.json:
            nothing = {"url": args.url, "server": None, "ready": False, "models": [], "error": str(error)}
            _print(json.dumps(nothing, indent=2))
        raise
    as_json = asdict(status) | {"ready": status.ready}
    _print(json.dumps(as_json, indent=2) if args.json else status_table(status))
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


def _as_the_reference_does(input_type: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The reference takes one frame of an image, whatever it is asked for."""
    if not takes_one_frame(input_type, options):
        return options
    _say(f"an image is one frame of context, as in cosmos-predict1, not {options['num_input_frames']}")
    return options | {"num_input_frames": 1}


def _single_output(args: argparse.Namespace) -> Path:
    if args.video_save_name is None and args.video_save_folder is None:
        if args.output is None:
            raise UsageError("say where the video goes: --output FILE")
        output: Path = args.output
        return output
    if args.output is not None:
        raise UsageError("--output and --video-save-name or --video-save-folder say the same thing twice")
    name = (args.video_save_name or DEFAULT_NAME).removesuffix(".mp4")
    return (args.video_save_folder or Path(DEFAULT_FOLDER)) / f"{name}.mp4"


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
    if media.suffix.lower() not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
        _say(f"{name} is not named like a png, jpg, jpeg, webp or mp4 file; it is sent as it is")


def _hint_fields(source: Path, clips: Sequence[Clip]) -> None:
    for clip in clips:
        _hint_suffix(clip.path, f"{source}:{clip.line}: {clip.visual_input}")
        for name in clip.unknown:
            _say(f"{source}:{clip.line}: the field {name!r} means nothing here and is left out")


def _prepare(path: Path) -> None:
    if path != STDOUT:
        prepare_output(path)
    elif sys.stdout.isatty():
        raise UsageError("- is stdout, which is a terminal here: redirect it, or name a file")


def _save(path: Path, content: bytes) -> None:
    """Writes `content` to a file, whole or not at all, or to stdout; raises `OutputError`."""
    if path != STDOUT:
        with atomic_file(path) as file:
            file.write(content)
        return
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    except OSError as error:
        raise cannot_write("stdout", error) from error


def _npy(world: World) -> bytes:
    file = io.BytesIO()
    np.save(file, world.tokens)
    return file.getvalue()


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """What ends a program (`docker stop`, a closed terminal) unwinds like Ctrl-C: requests are cancelled.

    A signal that is ignored already (`nohup`) stays so.
    """

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(_SIGNALLED + number)

    numbers = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # Windows has no SIGHUP
    previous = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number, handler in previous.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, previous[number])


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):  # None where the descriptor was closed before the start
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be valid UTF-8


def _flush_or_drop(stream: Any) -> None:
    """Leaves nothing in `stream` for the interpreter to fail at when it ends."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):  # ValueError: a stand-in without a descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        raise cannot_write("stdout", error) from error


def _say(message: str) -> None:
    """One line to stderr, above the progress bar if there is one."""
    with suppress(OSError):  # nobody reads it: a terminal that is gone, a full disk
        tqdm.write(f"{PROGRAM}: {one_line(message)}", file=sys.stderr)
