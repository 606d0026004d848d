"""The subcommands of `cosmos-triton` that deal with checkpoint folders."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SIZES = ("tiny", "4B", "5B", "12B", "13B")
DEFAULT_DIRECTORY = Path("checkpoints")


def register(subparsers: "Subparsers") -> None:
    """Adds `init-random`."""
    _register_init_random(subparsers)


def _register_init_random(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "init-random",
        help="write a checkpoint folder with random weights",
        description="Write a complete checkpoint folder in the published layout with seeded random weights, "
        "for demos, tests and benchmarks.",
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    _add_directory(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_init_random)


def _init_random(options: argparse.Namespace) -> int:
    from cosmos_triton.checkpoints.random import init_random  # torch is imported only where it is needed

    init_random(options.size, options.checkpoint_dir, options.seed)
    return 0


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint-dir", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR")
