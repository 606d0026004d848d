"""Drive an ensemble through a real tritonserver with perf_analyzer; report time, throughput and memory.

    python -m benchmarks.serve --checkpoint-dir checkpoints/tiny --profile cpu
    python -m benchmarks.serve --checkpoint-dir /checkpoints --profile torch --concurrency 1,2,4,8

Starts the server, sends one video that is not counted, then a number of videos for every concurrency.
Writes NAME.json, NAME.csv, NAME.md, plots and the first video's frames as one picture (NAME-video.jpg)
into the output folder. COSMOS_* variables configure the server as ever (COSMOS_RESIDENCY=offload,
COSMOS_DIFFUSION_DECODER_PRESET=reduced, …) and are recorded.

Prints tables; the last line is the result as one JSON document.
"""

import argparse
import base64
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import memory, perf_analyzer, report, stages
from benchmarks.result import REPOSITORY, describe, finish, without_folders
from benchmarks.result import write as write_json
from cosmos_client import CosmosClient
from cosmos_triton.demo import contact_sheet, synthetic_clip
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.media import all_frames, encode_mp4
from cosmos_triton.pipeline import ENSEMBLES, PROFILES
from cosmos_triton.server import ServerSettings, loopback, serving
from cosmos_triton.serving import RESIDENCY_VARIABLE

PROMPT = "A robot arm slowly lifts the red cube from the conveyor belt, under warm light."
_SEEDS = 64  # distinct requests; perf_analyzer goes round
_MOST_SAMPLES = 600  # of the timeline kept in the result
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Target:
    """A server that is ready."""

    grpc_url: str
    metrics_url: str
    pid: int | None
    ready_s: float | None


def request_file(path: Path, media: bytes, prompt: str | None) -> None:
    """perf_analyzer's input data: the same clip under many seeds. BYTES carry their length in front."""

    def text(value: bytes) -> dict[str, str]:
        return {"b64": base64.b64encode(struct.pack("<I", len(value)) + value).decode()}

    common: dict[str, Any] = {"media": text(media)}
    if prompt is not None:
        common["prompt"] = text(prompt.encode())
    path.write_text(json.dumps({"data": [{**common, "seed": [seed]} for seed in range(_SEEDS)]}))


def measure(target: Target, arguments: argparse.Namespace, sampler: memory.Sampler) -> dict[str, Any]:
    """The report of a first video that is not counted, and what was measured at every concurrency."""
    ensemble = arguments.ensemble
    clip = synthetic_clip(height=640, width=1024)
    media = encode_mp4(clip)
    prompt = PROMPT if "video2world" in ensemble else None
    first: dict[str, Any] = {}
    if arguments.warm_up:
        sampler.note("first video")
        with CosmosClient(target.grpc_url, timeout_s=_TIMEOUT_S) as client:
            video = client.generate(media, prompt=prompt, seed=_SEEDS, model=ensemble)
        first = video.report
        picture(clip, video.video, arguments)
    levels = []
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.json"
        request_file(inputs, media, prompt)
        for concurrency in arguments.concurrency:
            sampler.note(f"{concurrency} in flight")
            load = perf_analyzer.Load(
                model=ensemble,
                url=target.grpc_url,
                inputs=inputs,
                concurrency=concurrency,
                requests=concurrency * arguments.videos_each,
            )
            before = stages.read(target.metrics_url)
            answer = perf_analyzer.run(load, Path(scratch) / str(concurrency))
            after = stages.read(target.metrics_url)
            levels.append(level(answer, after.since(before)))
            _say(f"{concurrency} in flight: {levels[-1]['latency_s']['mean_s']:.2f} s a video")
    return {"models": list(after.models), "first_video": first, "levels": levels}


def picture(clip: NDArray[np.uint8], video: bytes, arguments: argparse.Namespace) -> None:
    """What went in and what came out, for people to look at: a fast server of wrong videos is no use."""
    arguments.output_folder.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(clip[-9:], all_frames(video), title=f"{arguments.ensemble}, first video")
    sheet.save(arguments.output_folder / f"{arguments.name}-video.jpg")


def level(answer: perf_analyzer.Answer, reported: Mapping[str, float]) -> dict[str, Any]:
    """One concurrency's share of the result."""
    busy = stages.busy_seconds(answer.composing, reported)
    return {
        **{key: value for key, value in asdict(answer).items() if key != "composing"},
        "stage_s": busy,
        "outside_stages_s": round(answer.latency_s["mean_s"] - sum(busy.values()), 4),
        "queue_s": {stage: count.queue_s for stage, count in answer.composing.items()},
        "reported_s": dict(reported),
    }


@contextmanager
def started(arguments: argparse.Namespace) -> Iterator[Target]:
    """A server of our own, or the one at --url."""
    if arguments.url:
        yield Target(arguments.url, arguments.metrics_url, arguments.server_pid, None)
        return
    settings = ServerSettings.on_free_ports(
        model_repository=arguments.model_repository,
        checkpoint_dir=arguments.checkpoint_dir,
        profile=arguments.profile,
        ensembles=(arguments.ensemble,),
    )
    began = time.monotonic()
    with arguments.server_log.open("wb") as log, serving(settings, log, arguments.ready_timeout_s) as server:
        ready_s = round(time.monotonic() - began, 1)
        _say(f"ready after {ready_s} s")
        yield Target(server.grpc_url, server.metrics_url, server.process.pid, ready_s)


def thinned(timeline: dict[str, Any]) -> dict[str, Any]:
    """At most `_MOST_SAMPLES` moments of a timeline."""
    stride = -(-len(timeline["seconds"]) // _MOST_SAMPLES) or 1

    def thin(value: Any) -> Any:
        return {k: thin(v) for k, v in value.items()} if isinstance(value, dict) else value[::stride]

    return {key: value if key == "notes" else thin(value) for key, value in timeline.items()}


def write(result: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """All files of the result; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = report.plot(result, folder, name)
    texts = {
        ".csv": report.as_csv(result),
        ".md": report.markdown(result, plots),
    }
    for suffix, text in texts.items():
        (folder / f"{name}{suffix}").write_text(text)
    write_json(result, folder / f"{name}.json")
    return [*(folder / f"{name}{suffix}" for suffix in (".json", *texts)), *plots]


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint-dir", type=Path, help="folder of checkpoints (needed unless --url is given)")
    add("--model-repository", type=Path, default=REPOSITORY / "model_repository")
    add("--profile", default="cpu", choices=PROFILES, help="default %(default)s")
    add("--ensemble", default="cosmos_base", choices=ENSEMBLES, help="default %(default)s")
    add("--concurrency", type=_numbers, default=[1, 2, 4], help="comma-separated (default 1,2,4)")
    add("--videos-each", type=int, default=2, help="videos per place in flight (default %(default)s)")
    add("--no-warm-up", dest="warm_up", action="store_false", help="count the first video too")
    add("--residency", choices=("resident", "offload"), help=f"sets {RESIDENCY_VARIABLE}")
    add("--output-folder", type=Path, default=REPOSITORY / "benchmarks" / "results")
    add("--name", help="of the files (default serve-ENSEMBLE-PROFILE)")
    add("--server-log", type=Path, default=Path("server.log"), help="default %(default)s")
    add("--ready-timeout-s", type=float, default=1200.0, help="default %(default)s")
    add("--sample-interval-s", type=float, default=0.5, help="between memory samples (default %(default)s)")
    add("--url", help="host:port of a running server's gRPC endpoint, instead of starting one")
    add("--metrics-url", default="http://localhost:8002/metrics", help="with --url (default %(default)s)")
    add("--server-pid", type=int, help="with --url: tritonserver's process, to watch its memory")
    arguments = parser.parse_args(words)
    if not arguments.url and arguments.checkpoint_dir is None:
        parser.error("--checkpoint-dir or --url is needed")
    if arguments.videos_each < 1:
        parser.error(f"--videos-each {arguments.videos_each} is below 1")
    arguments.name = arguments.name or f"serve-{arguments.ensemble}-{arguments.profile}".replace("_", "-")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Measure and report; the exit code is 0 when everything was measured."""
    arguments = parse_arguments(words)
    os.environ.update(loopback.environment())  # for gRPC, ours and perf_analyzer's
    if arguments.residency:
        os.environ[RESIDENCY_VARIABLE] = arguments.residency
    result: dict[str, Any] = {
        **describe("serve"),
        "ensemble": arguments.ensemble,
        "profile": arguments.profile,
        "environment": {
            key: without_folders(os.environ[key]) for key in sorted(os.environ) if key.startswith("COSMOS_")
        },
    }
    try:
        perf_analyzer.find()
        report.load_plotting()  # what is missing is better known before than after an hour
        with started(arguments) as target:
            sampler = memory.Sampler(target.pid, arguments.sample_interval_s)
            with sampler.running():
                measured = measure(target, arguments, sampler)
    except (perf_analyzer.PerfAnalyzerError, ConfigurationError, ImportError) as error:
        _say(f"error: {error}")
        return 1
    result |= {
        **measured,
        "ready_s": target.ready_s,
        "memory": sampler.record.peaks(),
        "timeline": thinned(sampler.record.as_dict()),
    }
    files = write(result, arguments.output_folder, arguments.name)
    tables = "\n".join([report.console(result), "", *map(str, files)])
    finish(tables, {key: value for key, value in result.items() if key != "timeline"})
    return 0


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{min(numbers)} videos in flight is below 1")
    return numbers


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
