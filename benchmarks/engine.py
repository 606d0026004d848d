"""How close the autoregressive engine comes to the speed of memory.

    python -m benchmarks.engine --model 4B --output benchmarks/results/engine-4B-h100.json
    python -m benchmarks.engine --model tiny            # on a CPU: a smoke test

Random weights, real sizes. A step is one decode pass, with the cache filled up to the middle of a video that
continues nine frames, and half full. GB/s counts the weights (all but the embedding) once and each
sequence's keys and values once, which is the least a pass must read; the ceiling is a large copy on the same
device, measured first. Prints a table; the last line is one JSON document.
"""

import argparse
import queue
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import describe, finish
from cosmos_triton.architectures import AUTOREGRESSIVE, TEXT_ROWS, AutoregressiveArchitecture
from cosmos_triton.autoregressive import (
    AutoregressiveTransformer,
    Decode,
    Engine,
    EngineSettings,
    Generation,
    GenerationRequest,
    Prefill,
    Runner,
    SamplingParameters,
    Start,
    load_transformer,
    plain,
    slot_bytes,
)
from cosmos_triton.checkpoints import autoregressive_shapes


@dataclass(frozen=True)
class Measured:
    """One kind of pass."""

    videos: int
    window: int
    position: int
    milliseconds: float
    tokens_per_second: float  # one token a video and pass: what a pass is worth if no draft is right
    gigabytes_per_second: float
    percent_of_ceiling: float


def random_network(architecture: AutoregressiveArchitecture, device: str) -> AutoregressiveTransformer:
    """A network of random weights, made on the device. Activations keep a scale near 1."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tensors = {}
    for name, shape in autoregressive_shapes(architecture).items():
        tensor = torch.empty(shape, dtype=dtype, device=device)
        if "norm" in name:
            tensor.fill_(1)
        elif name == "tok_embeddings.weight":
            tensor.normal_()
        else:
            tensor.normal_(std=shape[-1] ** -0.5 * (3 if name == "output.weight" else 1))
        tensors[name] = tensor
    return load_transformer(architecture, tensors, torch.device(device))


class Clock:
    """Median milliseconds of repeated work on a device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def median(self, work: Callable[[], object], repeats: int, inner: int = 1) -> float:
        """Of `repeats` timings of `inner` calls, per call."""
        work()
        samples = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            for _ in range(inner):
                work()
            self.wait()
            samples.append((time.perf_counter() - began) / inner * 1e3)
        return statistics.median(samples)


def ceiling(clock: Clock, device: str) -> float:
    """GB/s of a large copy, bytes read plus bytes written."""
    size = 2**30 if device == "cuda" else 2**26
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * size / clock.median(lambda: target.copy_(source), 7, 5) / 1e6


def bytes_of_a_pass(network: AutoregressiveTransformer, videos: int, position: int) -> int:
    """The least a pass must read: every weight but the embedding, each video's filled cache."""
    a = network.architecture
    skipped = ("embedding", "cross_attention.wkv")  # of the text a pass reads the keys and values
    weights = sum(p.nbytes for name, p in network.named_parameters() if not name.endswith(skipped))
    per_row = 2 * a.layers * a.kv_heads * a.head_dim * network.output.element_size()
    rows = position + 1 + (TEXT_ROWS if a.is_video2world else 0)
    return weights + videos * rows * per_row


def fill(runner: Runner, position: int) -> None:
    """Bring every sequence to `position`, with random keys, values, tokens and a text."""
    a = runner.architecture
    held = (runner.cache.keys, runner.cache.values, runner.cache.text_keys, runner.cache.text_values)
    for tensor in held:
        if tensor is not None:
            tensor.normal_()
    runner.sequences.tokens.random_(0, a.vocabulary)
    for slot in range(runner.slots):
        parameters = SamplingParameters.recommended(a, seed=slot)
        prefix = runner.sequences.tokens[slot, : position + 1].clone()
        runner.sequences.start(slot, prefix, parameters)


def tokens_to_prefill(architecture: AutoregressiveArchitecture) -> int:
    """Of a context of nine frames; the last token is left to the first decode pass."""
    _, height, width = architecture.latent_shape
    return architecture.video_start + 2 * height * width - 1


def measure_prefill(runner: Runner, clock: Clock) -> float:
    """Seconds for a context of nine frames."""
    tokens = tokens_to_prefill(runner.architecture)
    chunk = runner.settings.prefill_chunk

    def prefill() -> None:
        for start in range(0, tokens, chunk):
            runner.launch(Prefill(0, start, min(start + chunk, tokens)))

    return clock.median(prefill, 5) / 1e3


def measure_pass(runner: Runner, videos: int, position: int, clock: Clock, copy_speed: float) -> Measured:
    """Passes over `videos` sequences from `position` on."""
    fill(runner, position)
    if clock.cuda:
        runner.capture(videos)
    command = Decode(tuple(range(videos)))
    inner = 20 if clock.cuda else 3
    milliseconds = clock.median(lambda: runner.launch(command), 5, inner)
    speed = bytes_of_a_pass(runner.network, videos, position) / milliseconds / 1e6
    return Measured(
        videos=videos,
        window=runner.window(videos),
        position=position,
        milliseconds=milliseconds,
        tokens_per_second=videos / milliseconds * 1e3,
        gigabytes_per_second=speed,
        percent_of_ceiling=100 * speed / copy_speed,
    )


def same_tokens(network: AutoregressiveTransformer, plans: list[tuple[int, int]], count: int) -> bool:
    """Whether video 0 gets the same tokens under every (videos, window) of `plans`."""
    a = network.architecture
    found = []
    prefix = np.random.default_rng(1).integers(0, a.vocabulary, 300)
    text = None
    if a.text_dim is not None:
        text = np.linspace(-1, 1, TEXT_ROWS * a.text_dim, dtype=np.float32).reshape(TEXT_ROWS, -1)
    for videos, window in plans:
        settings = EngineSettings(max_videos=videos, window=window)
        runner = Runner(network, settings)
        for slot in range(videos):
            parameters = SamplingParameters.recommended(a, seed=slot)
            runner.start(Start(slot, (prefix + slot) % a.vocabulary, text, parameters))
            runner.launch(Prefill(slot, 0, len(prefix) - 1))
        while runner.launch(Decode(tuple(range(videos)))).wait()[0] < len(prefix) + count - 1:
            pass
        found.append(runner.tokens(0, 0, len(prefix) + count))
        del runner
    return all(torch.equal(found[0], other) for other in found[1:])


def measure_serving(network: AutoregressiveTransformer, videos: int, window: int) -> dict[str, Any]:
    """The engine itself, thread and queue included: `videos` requests at once, one latent to make each."""
    a = network.architecture
    latents, height, width = a.latent_shape
    engine = Engine(network, EngineSettings(max_videos=videos, max_queue=0, window=window))
    engine.start()
    outcomes: queue.Queue[Generation | BaseException] = queue.Queue()
    shape = (latents - 1, height, width)
    began = time.perf_counter()
    for seed in range(videos):
        context = np.random.default_rng(seed).integers(0, a.vocabulary, shape, dtype=np.int32)
        text = None if a.text_dim is None else np.zeros((TEXT_ROWS, a.text_dim), np.float32)
        parameters = SamplingParameters.recommended(a, seed=seed)
        engine.submit(GenerationRequest(str(seed), context, text, parameters), outcomes.put)
    done = [outcomes.get() for _ in range(videos)]
    seconds = time.perf_counter() - began
    engine.stop()
    made = [each for each in done if isinstance(each, Generation)]
    assert len(made) == videos, done
    tokens = sum(each.tokens_generated for each in made)
    return {
        "videos": videos,
        "window_setting": window,
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "tokens_per_pass_and_video": tokens / sum(each.passes for each in made),
        "prefill_seconds_each": statistics.median(each.prefill_seconds for each in made),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one model."""
    device = options.device
    clock = Clock(device)
    copy_speed = ceiling(clock, device)
    architecture = AUTOREGRESSIVE[options.model]
    network = random_network(architecture, device)
    _, height, width = architecture.latent_shape
    middle = architecture.video_start + 7 * height * width // 2  # of what follows nine frames
    positions = (middle, architecture.max_sequence // 2)
    most = max(options.videos)
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        most = min(
            most, int(free * 0.9) // slot_bytes(architecture, text_rows=TEXT_ROWS, dtype=torch.bfloat16)
        )
    runner = Runner(network, EngineSettings(max_videos=most, window=1, prefill_chunk=options.prefill_chunk))
    prefill = measure_prefill(runner, clock)
    passes = [
        measure_pass(runner, videos, position, clock, copy_speed)
        for videos in options.videos
        if videos <= most
        for position in positions
    ]
    del runner
    for window in options.windows:
        runner = Runner(network, EngineSettings(max_videos=1, window=window))
        passes.append(measure_pass(runner, 1, middle, clock, copy_speed))
        del runner
    result = {
        **describe("engine"),
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "model": options.model,
        "operations": "plain" if network.operations is plain else "fused",
        "ceiling_gigabytes_per_second": copy_speed,
        "prefill_tokens": tokens_to_prefill(architecture),
        "prefill_chunk": options.prefill_chunk,
        "prefill_seconds": prefill,
        "passes": [asdict(each) for each in passes],
    }
    if options.check:
        result["same_tokens_in_batches_and_windows"] = same_tokens(
            network, [(1, 1), (8, 1), (1, 8), (2, 32)], options.check
        )
    result["serving"] = [
        measure_serving(network, videos, window)
        for videos in options.serve
        for window in options.serve_windows
    ]
    if device == "cuda":
        result["peak_memory_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
    return result


def table(result: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{result['model']} ({result['operations']}) on {result['device']}, "
        f"copy {result['ceiling_gigabytes_per_second']:.0f} GB/s",
        f"prefill of {result['prefill_tokens']} tokens: {result['prefill_seconds']:.4f} s",
        "videos window position   ms/pass  tokens/s    GB/s  % copy",
    ]
    lines += [
        f"{p['videos']:>6} {p['window']:>6} {p['position']:>8} {p['milliseconds']:>9.3f} "
        f"{p['tokens_per_second']:>9.0f} {p['gigabytes_per_second']:>7.0f} {p['percent_of_ceiling']:>7.1f}"
        for p in result["passes"]
    ]
    lines += [
        f"serving {s['videos']} videos, window {s['window_setting'] or 'automatic'}: "
        f"{s['tokens_per_second']:.0f} tokens/s, {s['tokens_per_pass_and_video']:.2f} tokens a pass and video"
        for s in result["serving"]
    ]
    for key in ("same_tokens_in_batches_and_windows", "peak_memory_gigabytes"):
        if key in result:
            lines.append(f"{key.replace('_', ' ')}: {result[key]}")
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    """`1,2,4` → [1, 2, 4]."""
    return [int(number) for number in text.split(",") if number.strip()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--model", default="4B" if cuda else "tiny", choices=sorted(AUTOREGRESSIVE))
    parser.add_argument("--device", default="cuda" if cuda else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--videos", type=numbers, default=[1, 2, 4, 8, 16, 32] if cuda else [1, 4])
    parser.add_argument("--windows", type=numbers, default=[16, 32, 64] if cuda else [4])
    parser.add_argument("--prefill-chunk", type=int, default=1024)
    parser.add_argument("--check", type=int, default=200 if cuda else 5, help="tokens compared; 0 for none")
    parser.add_argument(
        "--serve", type=numbers, default=[] if cuda else [2], help="numbers of requests for the engine"
    )
    parser.add_argument("--serve-windows", type=numbers, default=[1, 0] if cuda else [1])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with torch.inference_mode():
        result = run(options)
    finish(table(result), result, options.output)


if __name__ == "__main__":
    main()
