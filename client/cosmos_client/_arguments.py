"""The command line of `cosmos-client`: its options, their help, and examples."""

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeAlias

from cosmos_client._client import DEFAULT_TIMEOUT_S, DEFAULT_URL, check_timeout
from cosmos_client._errors import UsageError
from cosmos_client._options import OPTIONS
from cosmos_client._reference import DEFAULT_FOLDER, DEFAULT_NAME, INPUT_TYPES, SERVER_OPTIONS

Command: TypeAlias = Callable[[argparse.Namespace], int]

PROGRAM = "cosmos-client"
RESULTS_NAME = "results.jsonl"
STDOUT = Path("-")  # as an output: not a file of that name

_EXAMPLES = """\
examples:
  what follows nine frames of a video:
    cosmos-client generate --input clip.mp4 --output world.mp4
  what follows an image, as a prompt tells it:
    cosmos-client generate --input photo.jpg --prompt "The car turns left" --output world.mp4
  the video itself to another program:
    cosmos-client generate --input clip.mp4 --output - | ffmpeg -i - world.webm
  500 clips, eight at a time; clips.jsonl holds lines like {"visual_input": "a.mp4", "prompt": "..."}:
    cosmos-client generate --batch-input-path clips.jsonl --output-folder worlds --concurrency 8
  go on after that was interrupted or failed in part: the same command again
  is the server ready?
    cosmos-client status --url gpu-box:8001

The path of each finished video goes to stdout, everything else to stderr. A request that the server
turns away unbegun (its queue is full, a model is being loaded) is sent again for up to a minute.
exit codes: 0 done, 1 a request failed, 2 wrong usage, 130 interrupted (129 hung up, 143 terminated).
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are `UsageError`s, told in one line like every other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (`{self.prog} --help` explains)")


class _Commands(Protocol):
    """What `add_subparsers` returns; argparse keeps its class to itself."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def build_parser(generate: Command, status: Command) -> argparse.ArgumentParser:
    """The whole command line; options that are spelled with underscores must go through `dashed` first.

    Parsing raises `UsageError` where it cannot go on.
    """
    parser = _Parser(
        PROGRAM,
        description="Ask a cosmos-triton server what happens next in an image or a video.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('cosmos-triton')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_generate(commands, generate)
    _add_status(commands, status)
    return parser


def _add_generate(commands: _Commands, generate: Command) -> None:
    parser = commands.add_parser(
        "generate",
        help="make a world of 33 frames from an image or a video",
        description="Make a world of 33 frames from an image or nine frames of a video.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=generate)
    _add_one_clip(parser)
    _add_many_clips(parser)
    _add_options(parser)
    _add_server(parser, DEFAULT_TIMEOUT_S, "the most seconds one request may take")
    _add_reference(parser)


def _add_one_clip(parser: argparse.ArgumentParser) -> None:
    one = parser.add_argument_group("one clip")
    one.add_argument(
        "--input",
        "--input-image-or-video-path",
        metavar="FILE",
        type=Path,
        help="png, jpg, jpeg, webp or mp4; of a video, the last nine frames are the context",
    )
    one.add_argument("--output", metavar="FILE", type=Path, help="where the video goes (MP4); - is stdout")
    one.add_argument(
        "--save-tokens", metavar="FILE", type=Path, help="also keep the video tokens: a .npy, INT32 [5,h,w]"
    )
    one.add_argument("--save-report", metavar="FILE", type=Path, help="also keep the server's report (JSON)")


def _add_many_clips(parser: argparse.ArgumentParser) -> None:
    many = parser.add_argument_group("many clips")
    many.add_argument(
        "--batch-input-path",
        metavar="FILE",
        type=Path,
        help=f"JSON Lines: visual_input, and if wanted {', '.join(OPTIONS)}; "
        "paths are looked for in the working directory, then beside this file",
    )
    many.add_argument(
        "--output-folder",
        metavar="DIR",
        type=Path,
        help=f"where the videos go, named after their clips, and {RESULTS_NAME}, one object a line",
    )
    many.add_argument(
        "--concurrency", metavar="N", type=_count, default=4, help="requests in flight (default %(default)s)"
    )
    many.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"leave out what the folder's {RESULTS_NAME} says is done, with the same options (default); "
        "--no-resume makes everything again",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how the world is made (in a batch: where a line says nothing else)")
    how.add_argument(
        "--model",
        metavar="NAME",
        help="the ensemble (default: cosmos_video2world with a prompt, cosmos_base without)",
    )
    how.add_argument(
        "--disable-diffusion-decoder",
        action="store_true",
        help="use the model's _fast ensemble: sooner done, less sharp",
    )
    for name, option in OPTIONS.items():
        how.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=option.metavar,
            type=option.python_type,
            choices=option.choices,
            help=option.help,
        )


def _add_reference(parser: argparse.ArgumentParser) -> None:
    reference = parser.add_argument_group(
        "names that cosmos-predict1's scripts use",
        "Options may be spelled with underscores, and these are understood too.",
    )
    reference.add_argument(
        "--input-type", choices=INPUT_TYPES, help="checked against the input's name and the prompt"
    )
    reference.add_argument(
        "--video-save-folder",
        metavar="DIR",
        type=Path,
        help=f"with --video-save-name: where the video goes (default {DEFAULT_FOLDER}); "
        "in a batch: the output folder",
    )
    reference.add_argument(
        "--video-save-name", metavar="NAME", help=f"the video's name without .mp4 (default {DEFAULT_NAME})"
    )
    ignored = parser.add_argument_group(
        "options of cosmos-predict1's scripts that are set on the server here",
        "Taken, so that its command lines run, and ignored.",
    )
    for option in SERVER_OPTIONS:
        flag = f"--{option.name}"
        if option.metavar is None:
            ignored.add_argument(flag, action="store_true", help=f"instead: {option.where}")
        else:
            ignored.add_argument(flag, metavar=option.metavar, help=f"instead: {option.where}")


def _add_status(commands: _Commands, status: Command) -> None:
    parser = commands.add_parser(
        "status",
        help="show which models are ready",
        description="Show which models of a server are ready; exit code 1 if it takes no requests.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=status)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    _add_server(parser, 10.0, "the most seconds to wait")


def _add_server(parser: argparse.ArgumentParser, timeout_s: float, timeout_help: str) -> None:
    server = parser.add_argument_group("server")
    server.add_argument(
        "--url", default=DEFAULT_URL, metavar="HOST:PORT", help="Triton's gRPC port (default %(default)s)"
    )
    server.add_argument(
        "--timeout-s",
        metavar="S",
        type=_seconds,
        default=timeout_s,
        help=f"{timeout_help} (default %(default)g)",
    )
    server.add_argument("--tls", action="store_true", help="encrypt the connection")
    server.add_argument("--tls-ca", metavar="PEM", help="check the server's certificate with this one")
    server.add_argument("--tls-cert", metavar="PEM", help="the client's certificate, for mutual TLS")
    server.add_argument("--tls-key", metavar="PEM", help="the client's private key, for mutual TLS")


def _seconds(text: str) -> float:
    try:
        value = float(text)
        check_timeout(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
