"""The command line of `cosmos-client`: its options, their help, and examples."""

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from cosmos_client._client import DEFAULT_TIMEOUT_S, DEFAULT_URL, check_timeout
from cosmos_client._errors import UsageError

Command: TypeAlias = Callable[[argparse.Namespace], int]

PROGRAM = "cosmos-client"
INPUT_TYPES = ("image", "video", "text_and_image", "text_and_video")
RESULTS_NAME = "results.jsonl"
REFERENCE_FOLDER, REFERENCE_NAME = "outputs", "output"  # cosmos-predict1's defaults

_EXAMPLES = """\
examples:
  what follows nine frames of a video:
    cosmos-client generate --input clip.mp4 --output world.mp4
  what follows an image, as a prompt tells it:
    cosmos-client generate --input photo.jpg --prompt "The car turns left" --output world.mp4
  500 clips, eight at a time; clips.jsonl holds lines like {"visual_input": "a.mp4", "prompt": "..."}:
    cosmos-client generate --batch-input-path clips.jsonl --output-folder worlds --concurrency 8
  is the server ready?
    cosmos-client status --url gpu-box:8001

The path of each finished video goes to stdout, everything else to stderr.
exit codes: 0 done, 1 a request failed, 2 wrong usage, 130 interrupted.
"""


def build_parser(generate: Command, status: Command) -> argparse.ArgumentParser:
    """The whole command line; options that are spelled with underscores must go through `dashed` first."""
    parser = argparse.ArgumentParser(
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


def _add_generate(commands: Any, generate: Command) -> None:
    parser = commands.add_parser(
        "generate",
        help="make a world of 33 frames from an image or a video",
        description="Make a world of 33 frames from an image or nine frames of a video.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=generate)

    one = parser.add_argument_group("one clip")
    one.add_argument(
        "--input",
        "--input-image-or-video-path",
        metavar="FILE",
        type=Path,
        help="png, jpg, jpeg, webp or mp4; of a video, the last nine frames are the context",
    )
    one.add_argument("--output", metavar="FILE", type=Path, help="where the video goes (MP4)")
    one.add_argument(
        "--save-tokens", metavar="FILE", type=Path, help="also keep the video tokens: a .npy, INT32 [5,h,w]"
    )
    one.add_argument("--save-report", metavar="FILE", type=Path, help="also keep the server's report (JSON)")

    many = parser.add_argument_group("many clips")
    many.add_argument(
        "--batch-input-path",
        metavar="FILE",
        type=Path,
        help="JSON Lines: visual_input, and if wanted prompt, seed, top_p, temperature, num_input_frames; "
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

    how = parser.add_argument_group("how the world is made (in a batch: where a line says nothing else)")
    how.add_argument("--prompt", metavar="TEXT", help="what happens next; for the Video2World models")
    how.add_argument(
        "--model",
        metavar="NAME",
        help="the ensemble (default: cosmos_video2world with a prompt, cosmos_base without)",
    )
    how.add_argument("--seed", metavar="N", type=int, help="same seed, same world (default: 0)")
    how.add_argument(
        "--temperature", metavar="X", type=float, help="default: the value recommended for the model"
    )
    how.add_argument("--top-p", metavar="X", type=float, help="default: the value recommended for the model")
    how.add_argument(
        "--num-input-frames",
        type=int,
        choices=(1, 9),
        help="frames of context (default: 1 for an image, 9 for a video)",
    )
    how.add_argument(
        "--disable-diffusion-decoder",
        action="store_true",
        help="use the model's _fast ensemble: sooner done, less sharp",
    )

    _add_server(parser, DEFAULT_TIMEOUT_S, "the most seconds one request may take")

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
        help=f"with --video-save-name: where the video goes (default {REFERENCE_FOLDER}); "
        "in a batch: the output folder",
    )
    reference.add_argument(
        "--video-save-name", metavar="NAME", help=f"the video's name without .mp4 (default {REFERENCE_NAME})"
    )


def _add_status(commands: Any, status: Command) -> None:
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


def dashed(word: str) -> str:
    """An option in the reference's spelling as ours: `--top_p=0.8` → `--top-p=0.8`; the rest stays."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _seconds(text: str) -> float:
    value = float(text)
    try:
        check_timeout(value)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
