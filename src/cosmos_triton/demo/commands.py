"""`cosmos-triton demo` and `cosmos-triton init-random`."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from cosmos_triton.checkpoints import COMPONENTS, SIZES, add_directory, say, size_text
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.sentences import telling
from cosmos_triton.server import ServerSettings, add_folders, checks, loopback, serving


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both."""
    _register_demo(subparsers)
    _register_init_random(subparsers)


def _register_demo(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "demo",
        help="one clip through a real server on the CPU, start to finish",
        description="Make a sample clip, start tritonserver (profile cpu), send the clip with cosmos-client, "
        "write world.mp4 and a contact sheet world.png, stop the server.",
    )
    add_folders(parser)
    parser.add_argument("--output-folder", type=Path, default=Path("demo"), help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.set_defaults(run=demo)


def _register_init_random(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "init-random",
        help="write a checkpoint folder with random weights",
        description="Write a complete checkpoint folder in the published layout with seeded random weights, "
        "for demos, tests and benchmarks.",
    )
    parser.add_argument("--size", choices=SIZES, default="tiny", help="default %(default)s")
    add_directory(parser)
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--only", nargs="+", choices=COMPONENTS, default=COMPONENTS, help="write only these")
    parser.set_defaults(run=_init_random)


def demo(arguments: argparse.Namespace) -> int:
    """The whole path once; prints where the results are."""
    from cosmos_triton.demo.sample_clip import synthetic_clip
    from cosmos_triton.demo.sheet import contact_sheet
    from cosmos_triton.media import all_frames, decode_media, encode_mp4

    folder: Path = arguments.output_folder
    clip, world, sheet, report, log = (
        folder / name for name in ("input.mp4", "world.mp4", "world.png", "report.json", "server.log")
    )
    with telling(clip):
        folder.mkdir(parents=True, exist_ok=True)
        clip.write_bytes(encode_mp4(synthetic_clip()))
    settings = ServerSettings.on_free_ports(
        model_repository=arguments.model_repository,
        checkpoint_dir=arguments.checkpoint_dir,
        profile="cpu",
        ensembles=("cosmos_base",),
    )
    checks.check_graphs(settings)
    began = time.monotonic()
    say(f"starting tritonserver (log: {log})")
    with telling(log), log.open("wb") as log_file, serving(settings, log_file) as server:
        say(f"ready after {time.monotonic() - began:.1f} s; sending {clip} with cosmos-client")
        client = [sys.executable, "-m", "cosmos_client", "generate", "--url", server.grpc_url]
        options = ["--input", str(clip), "--output", str(world), "--save-report", str(report)]
        done = subprocess.run(
            [*client, *options, "--seed", str(arguments.seed)],
            stdout=subprocess.DEVNULL,
            env=loopback.environment(),
        )
        if done.returncode:
            raise ConfigurationError(f"cosmos-client ended with code {done.returncode}; see {log}")
    with telling(report):
        told = json.loads(report.read_text())
    title = f"{told['model']} model, seed {told['seed']}, {told['seconds']['total']:.1f} s"
    with telling(world):
        context, made = decode_media(clip.read_bytes()).frames, all_frames(world.read_bytes())
    with telling(sheet):
        contact_sheet(context, made, title=title).save(sheet)
    say(f"done in {time.monotonic() - began:.1f} s; the server is stopped")
    print(world)
    print(sheet)
    return 0


def _init_random(options: argparse.Namespace) -> int:
    from cosmos_triton.demo.random_weights import init_random

    init_random(options.size, options.checkpoint_dir, options.seed, options.only, on_directory=_say_writing)
    sys.stdout.write(f"{options.checkpoint_dir}\n")
    return 0


def _say_writing(directory: Path, size: int) -> None:
    say(f"writing {directory} ({size_text(size)})")
