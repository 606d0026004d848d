"""`python -m export`: the networks of a checkpoint folder as files that Triton runs."""

import argparse
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from cosmos_triton.errors import CosmosError
from cosmos_triton.geometry import VideoGeometry
from export.job import Exported, ExportJob, run

# In the order of their cost, so that two workers end together. A test holds them against
# export.graphs, which is not imported here because it takes seconds to import.
NETWORKS = ("video_decoder", "latent_decoder", "video_encoder", "diffusion_denoiser", "text_encoder")
_JOBS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all done, 1 a network failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    networks = [name for name in NETWORKS if name in (options.network or NETWORKS)]
    job = ExportJob(
        checkpoint=options.checkpoint,
        output=options.output or options.checkpoint / "onnx",
        video=options.video,
        force=options.force,
    )
    failures = 0
    for count, (name, outcome) in enumerate(_outcomes(networks, job, options.jobs), start=1):
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
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        pending = {pool.submit(run, name, job): name for name in networks}
        for future in as_completed(pending):
            try:
                yield pending[future], future.result()
            except CosmosError as error:
                yield pending[future], error


def _describe(exported: Exported) -> str:
    size = exported.path.stat().st_size / 1e6 if exported.path.exists() else 0.0
    if exported.agreement is None:
        return f"unchanged, kept            {exported.path}"
    if not exported.agreement.holds:
        return f"disagrees with PyTorch, removed: {exported.agreement}"
    return f"{exported.seconds:5.1f} s {size:8.1f} MB  {exported.agreement}  {exported.path}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument(
        "--network",
        nargs="+",
        choices=NETWORKS,
        metavar="NAME",
        help=f"of {', '.join(NETWORKS)}; all by default",
    )
    parser.add_argument(
        "--onnx-only", action="store_true", required=True, help="float32 graphs for ONNX Runtime; no engines"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the .onnx files; DIR/onnx by default")
    parser.add_argument(
        "--video",
        type=_video,
        metavar="FxHxW",
        help="frames, height and width; by default those of the folder's autoregressive models",
    )
    parser.add_argument("--force", action="store_true", help="export again what did not change")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(_JOBS, os.cpu_count() or 1),
        help="networks at a time (default %(default)s)",
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
