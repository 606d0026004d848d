"""`python -m cosmos_export`: the networks of a checkpoint folder as files that Triton runs."""

import argparse
import atexit
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from cosmos_export.job import Exported, ExportJob, run
from cosmos_export.tensorrt_library import LIBRARIES, TENSORRT, load_library
from cosmos_triton.errors import CosmosError
from cosmos_triton.geometry import VideoGeometry

# In the order of their cost, so that two workers end together. A test holds them against
# cosmos_export.graphs, which is not imported here because it takes seconds to import.
NETWORKS = ("video_decoder", "latent_decoder", "video_encoder", "diffusion_denoiser", "text_encoder")
_JOBS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all done, 1 a network failed, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["verify"]:
        from cosmos_export.verify import main as verify

        return verify(arguments[1:])
    options = _parser().parse_args(arguments)
    networks = [name for name in NETWORKS if name in (options.network or NETWORKS)]
    job = ExportJob(
        checkpoint=options.checkpoint,
        repository=options.repository,
        output=options.output,
        video=options.video,
        force=options.force,
        library=options.library,
        capabilities=tuple(options.compute_capability or ()),
        workspace_gib=options.workspace_gib,
    )
    if job.repository:
        try:
            load_library(job.library)  # before a checkpoint is read for nothing
        except CosmosError as error:
            print(f"python -m cosmos_export: {error}", file=sys.stderr)
            return 1
    # Plans are built one after the other: each takes the GPU, and gigabytes of memory, for itself.
    jobs = options.jobs or (1 if job.repository else _JOBS)
    failures = 0
    for count, (name, outcome) in enumerate(_outcomes(networks, job, jobs), start=1):
        place = f"[{count}/{len(networks)}] {name:<18}"
        if isinstance(outcome, CosmosError):
            failures += 1
            print(f"{place} failed: {outcome}", file=sys.stderr)
        else:
            failures += not outcome.holds
            print(f"{place} {_describe(outcome)}", flush=True)
    return 1 if failures else 0


def _outcomes(
    networks: Sequence[str], job: ExportJob, jobs: int
) -> Iterator[tuple[str, Exported | CosmosError]]:
    """Each network with its result, or with what stopped it, as they finish."""
    workers = min(jobs, len(networks))
    job = replace(job, threads=max(1, (os.cpu_count() or 1) // workers))
    fresh = 1 if job.repository else None  # a plan's memory goes back when its process ends
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    # A worker ends without taking its interpreter apart, which takes seconds: its files are closed by then.
    with ProcessPoolExecutor(
        workers, spawn, initializer=atexit.register, initargs=(os._exit, 0), max_tasks_per_child=fresh
    ) as pool:
        pending = {pool.submit(run, name, job): name for name in networks}
        for future in as_completed(pending):
            try:
                yield pending[future], future.result()
            except CosmosError as error:
                yield pending[future], error


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cosmos_export", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument(
        "--network",
        nargs="+",
        choices=NETWORKS,
        metavar="NAME",
        help=f"of {', '.join(NETWORKS)}; all by default",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--onnx-only", action="store_true", help="float32 graphs for ONNX Runtime; no plans")
    target.add_argument(
        "--repository", type=Path, metavar="DIR", help="model repository that gets TensorRT plans"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="of the .onnx files; by default CHECKPOINT/onnx for float32 graphs, and beside its weights "
        "(so that it can point into them) for the graph of a plan",
    )
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
        metavar="X.Y",
        help="to build for, with tensorrt_rtx alone: it needs no GPU (default 8.0 8.9 12.0)",
    )
    parser.add_argument(
        "--workspace-gib", type=float, help="limit of the builder's scratch memory on the GPU"
    )
    return parser


def _video(text: str) -> VideoGeometry:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not frames x height x width, e.g. 33x640x1024")
    frames, height, width = map(int, match.groups())
    try:
        return VideoGeometry(frames, height, width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
