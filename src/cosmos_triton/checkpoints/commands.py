"""The subcommands of `cosmos-triton` that deal with checkpoint folders."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cosmos_triton.checkpoints.releases import MODELS, OPTIONAL, PREDICT1, RELEASES
from cosmos_triton.tables import text_table

if TYPE_CHECKING:  # torch and huggingface_hub are imported by the command that needs them
    from cosmos_triton.checkpoints.download import Item
    from cosmos_triton.checkpoints.inspect import FolderReport

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_DIRECTORY = Path("checkpoints")

_LONGEST_REASON = 300  # characters of a reason in the table
_EXIT_CODES = (
    "exit codes: 0 done; 1 failed; 2 wrong usage; 3 a token is needed; 4 the token is not known (401); "
    "5 the licence is not accepted (403); 6 no network, or the hub is in trouble; 7 the disk is full; "
    "8 a file arrived corrupt; 9 the hub has no such file (404)"
)


def register(subparsers: "Subparsers") -> None:
    """Adds `download` and `inspect`."""
    _register_download(subparsers)
    _register_inspect(subparsers)


def _register_download(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "download",
        help="fetch published checkpoints from the hub",
        description="Fetch everything that the named models need, verify checksums, go on where an earlier "
        "run stopped. The token is taken from HF_TOKEN or from `hf auth login`.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, required=True, help="which models")
    add_directory(parser)
    parser.add_argument(
        "--release", choices=tuple(RELEASES), default=PREDICT1.name, help="default %(default)s"
    )
    parser.add_argument(
        "--without",
        nargs="+",
        choices=OPTIONAL,
        default=(),
        help="leave components out: the _fast ensembles need no diffusion decoder",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be fetched, with sizes")
    parser.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> int:
    from cosmos_triton.checkpoints.download import check_space, download, plan, wanted

    release = RELEASES[options.release]
    directory: Path = options.checkpoint_dir
    items = plan(wanted(options.models, release, options.without), release, directory)
    if options.dry_run:
        _print_plan(items)
        check_space(items, directory)
        return 0

    def tell(item: "Item", missing: bool) -> None:
        say(f"{'fetching' if missing else 'verified'} {item.path} ({size_text(item.file.size)})")

    download(items, directory, tell)
    sys.stdout.write(f"{directory}\n")
    return 0


def _print_plan(items: Sequence["Item"]) -> None:
    rows = [
        (size_text(item.missing_bytes), size_text(item.file.size), item.file.repository, item.file.name)
        for item in items
    ]
    sys.stdout.write(text_table([("to fetch", "size", "repository", "file"), *rows], right=(0, 1)) + "\n")
    total = sum(item.missing_bytes for item in items)
    sys.stdout.write(f"{size_text(total)} to fetch of {size_text(sum(item.file.size for item in items))}\n")


def _register_inspect(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "inspect",
        help="say what a checkpoint folder holds and can serve",
        description="List the networks in a folder, found by tensor names and shapes, and the ensembles it "
        "can serve. Exit code 1 when nothing can be served.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--verify", action="store_true", help="also read every number: not finite, all zero")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from cosmos_triton.checkpoints.inspect import inspect_folder

    report = inspect_folder(options.directory, options.verify)
    if options.json:
        servable = [e.ensemble for e in report.ensembles if e.servable]
        sys.stdout.write(json.dumps(asdict(report) | {"servable": servable}, indent=2) + "\n")
    else:
        _print_report(report)
    return 0 if report.servable else 1


def _print_report(report: "FolderReport") -> None:
    rows = [
        (
            part.component,
            part.architecture,
            str(part.tensors),
            f"{part.parameters:,}",
            ", ".join(part.dtypes),
            size_text(part.bytes),
            "damaged" if part.problem else "whole",
            part.directory,
        )
        for part in report.components
    ]
    if rows:
        header = ("component", "architecture", "tensors", "parameters", "dtype", "size", "state", "directory")
        sys.stdout.write(text_table([header, *rows]) + "\n")
    for problem in [*(part.problem for part in report.components if part.problem), *report.unreadable]:
        sys.stdout.write(f"problem: {_shortened(problem)}\n")
    sys.stdout.write(f"guardrail: {report.guardrail or 'not here'}\n")
    for ensemble in report.ensembles:
        named = f"{ensemble.ensemble} ({ensemble.model})" if ensemble.model else ensemble.ensemble
        sys.stdout.write(f"{named}: {_shortened(ensemble.reason) or 'can be served'}\n")


def _shortened(reason: str) -> str:
    if len(reason) <= _LONGEST_REASON:
        return reason
    return f"{reason[:_LONGEST_REASON]} … (--json has it whole)"


def add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint-dir", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR", help="default %(default)s"
    )


def size_text(count: int) -> str:
    """Bytes in decimal units, as the hub shows them."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
