"""`cosmos-triton export` and `cosmos-triton export verify`."""

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

from cosmos_export.job import Exported, ExportJob
from cosmos_export.tensorrt_library import LIBRARIES, TENSORRT, load_library
from cosmos_export.worker import export_all
from cosmos_triton.errors import CosmosError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import ENSEMBLES, NETWORKS, loaded_networks
from cosmos_triton.sentences import telling

_GRAPHS_AT_A_TIME = 2


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export`, and below it `verify`."""
    parser = subparsers.add_parser(
        "export",
        help="the networks of a checkpoint folder as files that Triton runs",
        description="Write the networks of a checkpoint folder as TensorRT plans or as ONNX graphs; what did "
        "not change is kept.",
        epilog="example: cosmos-triton export --checkpoint-dir checkpoints/tiny --onnx-only",
    )
    _add_folders(parser, "model repository that gets TensorRT plans")
    parser.add_argument("--onnx-only", action="store_true", help="float32 graphs for ONNX Runtime; no plans")
    _add_networks(parser)
    parser.add_argument(
        "--ensemble",
        nargs="+",
        choices=ENSEMBLES,
        metavar="NAME",
        help=f"only the networks that these ensembles run, of {', '.join(ENSEMBLES)}",
    )
    parser.add_argument(
        "--output-folder",
        type=Path,
        metavar="DIR",
        help="of the .onnx files; by default `onnx` in the checkpoint folder for float32 graphs, and beside "
        "its weights (so that it can point into them) for the graph of a plan",
    )
    parser.add_argument("--output", dest="output_folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--video",
        type=_video,
        metavar="FxHxW",
        help="frames, height and width; by default those of the folder's autoregressive models",
    )
    parser.add_argument("--force", action="store_true", help="export again what did not change")
    parser.add_argument("--jobs", type=int, help="networks at a time: by default 2 graphs, or 1 plan")
    parser.add_argument("--library", choices=LIBRARIES, default=TENSORRT, help="default %(default)s")
    parser.add_argument(
        "--compute-capability",
        nargs="+",
        default=(),
        metavar="X.Y",
        help="to build for, with tensorrt_rtx alone: it needs no GPU (default 8.0 8.9 12.0)",
    )
    parser.add_argument(
        "--workspace-gib", type=float, help="limit of the builder's scratch memory on the GPU"
    )
    parser.set_defaults(run=_export, parser=parser)
    _register_verify(parser)


def _register_verify(export: argparse.ArgumentParser) -> None:
    parser = export.add_subparsers(title="commands", metavar="verify").add_parser(
        "verify",
        help="compare the plans with PyTorch, on the GPU that will serve them",
        description="Run the plans and the networks they were made from on the same inputs. "
        "Exit codes: 0 all agree, 1 one does not or could not be compared.",
    )
    _add_folders(parser, "model repository with the plans")
    _add_networks(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("parity.json"), help="of the table as JSON (default %(default)s)"
    )
    parser.set_defaults(run=_verify, parser=parser)


def _add_folders(parser: argparse.ArgumentParser, repository: str) -> None:
    """`--checkpoint-dir` and `--model-repository`. Neither is required by the parser: the arguments of
    `export` are read before those of `export verify`."""
    parser.add_argument("--checkpoint-dir", type=Path, metavar="DIR", help="folder of checkpoints (required)")
    parser.add_argument("--model-repository", type=Path, metavar="DIR", help=repository)
    parser.add_argument("--checkpoint", dest="checkpoint_dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repository", dest="model_repository", type=Path, help=argparse.SUPPRESS)


def _add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        nargs="+",
        choices=NETWORKS,
        metavar="NAME",
        help=f"of {', '.join(NETWORKS)}; all by default",
    )


def _video(text: str) -> VideoGeometry:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not frames x height x width, e.g. 33x640x1024")
    frames, height, width = map(int, match.groups())
    try:
        return VideoGeometry(frames, height, width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _export(options: argparse.Namespace) -> int:
    """Exit code: 0 all done, 1 a network failed."""
    if options.checkpoint_dir is None:
        options.parser.error("--checkpoint-dir is required")
    if options.onnx_only == (options.model_repository is not None):
        options.parser.error("one of --onnx-only and --model-repository is required")
    networks = _chosen(options)
    if options.ensemble:
        needed = loaded_networks(tuple(options.ensemble))
        networks = [name for name in networks if name in needed]
    if not networks:
        options.parser.error("--ensemble: none of these ensembles runs what --network names")
    job = ExportJob(
        checkpoint_dir=options.checkpoint_dir,
        model_repository=options.model_repository,
        output_folder=options.output_folder,
        video=options.video,
        force=options.force,
        library=options.library,
        capabilities=tuple(options.compute_capability),
        workspace_gib=options.workspace_gib,
    )
    if job.model_repository:
        load_library(job.library)  # before a checkpoint is read for nothing
    # Plans are built one after the other: each takes the GPU, and gigabytes of memory, for itself.
    workers = options.jobs or (1 if job.model_repository else _GRAPHS_AT_A_TIME)
    failures = 0
    for count, (name, outcome) in enumerate(export_all(networks, job, workers), start=1):
        place = f"[{count}/{len(networks)}] {name:<18}"
        if isinstance(outcome, CosmosError):
            failures += 1
            print(f"{place} failed: {outcome}", file=sys.stderr)
        else:
            failures += not outcome.holds
            print(f"{place} {_describe(outcome)}", flush=True)
    return 1 if failures else 0


def _chosen(options: argparse.Namespace) -> list[str]:
    return [name for name in NETWORKS if name in (options.network or NETWORKS)]


def _describe(exported: Exported) -> str:
    if exported.kept:
        return f"unchanged, kept  {exported.path}"
    if not exported.holds:
        return f"disagrees with PyTorch, not written: {exported.agreement}"
    parts = [f"{exported.seconds:6.1f} s", f"{exported.path.stat().st_size / 1e6:8.1f} MB"]
    parts.append(f"host memory {exported.peak_memory / 2**30:.1f} GiB")
    if exported.activation_memory is not None:
        parts.append(f"activations {exported.activation_memory / 2**30:.2f} GiB")
    parts += [str(part) for part in (exported.agreement, exported.note) if part]
    return "  ".join([*parts, str(exported.path)])


def _verify(options: argparse.Namespace) -> int:
    """Exit code: 0 all plans agree, 1 one does not or could not be compared."""
    if options.checkpoint_dir is None or options.model_repository is None:
        options.parser.error("--checkpoint-dir and --model-repository are required")
    from cosmos_export.verify import verify  # seconds of torch

    results, failures = [], 0
    for network in _chosen(options):
        try:
            result = verify(network, options.checkpoint_dir, options.model_repository)
        except CosmosError as error:
            failures += 1
            print(f"{network:<18} failed: {error}", file=sys.stderr)
            continue
        results.append(asdict(result))
        failures += not result.agreement.holds
        verdict = "agrees" if result.agreement.holds else "DISAGREES"
        print(
            f"{network:<18} {result.precision:<9} {verdict:<9} {result.agreement}; "
            f"PyTorch in the same precision: {result.rounding.error:.2g}",
            flush=True,
        )
    with telling(options.output):
        options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {options.output}")
    return 1 if failures else 0
