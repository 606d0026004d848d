"""The engine's kernels: right against the plain operations in float32, and how fast next to libraries.

    python -m benchmarks.engine_kernels --output benchmarks/results/engine-kernels-4B-h100.json

Needs a GPU. Inputs are random; errors are ‖out - reference‖ / ‖reference‖. Timings are replays of CUDA
graphs over weights and caches that do not fit the L2 cache. A comparison that a version of PyTorch cannot
run leaves its error instead of a time. The last line is one JSON document.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks.engine import random_network
from benchmarks.result import describe, finish, table
from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.autoregressive import KVCache, fused, nucleus, plain
from cosmos_triton.autoregressive.kernels import nucleus as fused_nucleus
from cosmos_triton.autoregressive.kernels.linear import few_rows_linear

DIM, FFN, VOCABULARY = 4096, 14336, 64000  # of 4B
HEADS, KV_HEADS, WIDTH, SEQUENCE = 32, 8, 128, 12800
FILLED = 8960
TOLERANCE = 1e-2  # bfloat16 operands give 1e-3 to 1e-2


def randn(*shape: int, dtype: torch.dtype = torch.bfloat16, std: float = 1.0) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda").normal_(std=std)


def error(out: Tensor, reference: Tensor) -> float:
    return float((out.double() - reference.double()).norm() / reference.double().norm())


def microseconds(calls: Callable[[], object], count: int) -> float:
    """Per call, of `count` successive ones in a CUDA graph; the median of seven replays."""
    calls()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            calls()
    samples = []
    for _ in range(8):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1e3 / count)
    return statistics.median(samples[1:])


def microseconds_or_error(calls: Callable[[], object], count: int) -> float | str:
    """`microseconds`, or why there are none."""
    try:
        return microseconds(calls, count)
    except Exception as problem:  # whatever compilation of another's code may raise
        return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"


def check_linear() -> Iterator[tuple[str, float]]:
    x, weight, double = randn(64, DIM), randn(6144, DIM, std=DIM**-0.5), randn(2 * 3584, DIM, std=DIM**-0.5)
    wide = x.float(), weight.float(), double.float()
    torch.backends.cuda.matmul.allow_tf32 = False
    for rows in (1, 5, 16, 33, 64):
        yield f"linear {rows}", error(fused.linear(x[:rows], weight), plain.linear(wide[0][:rows], wide[1]))
        gated = plain.gated_linear(wide[0][:rows], wide[2])
        yield f"gated {rows}", error(fused.gated_linear(x[:rows], double), gated)
        yield f"logits {rows}", error(fused.project(x[:rows], weight), plain.project(wide[0][:rows], wide[1]))
    many = randn(200, DIM)
    yield "gated 200", error(fused.gated_linear(many, double), plain.gated_linear(many.float(), wide[2]))


def check_norm() -> Iterator[tuple[str, float]]:
    x, a, b, weight = randn(3, 7, DIM), randn(3, 7, DIM), randn(3, 7, DIM), randn(DIM)
    for updates in ((), (a,), (a, b)):
        wide = tuple(update.float() for update in updates)
        out = fused.add_norm(x, updates, weight, 1e-5)
        expected = plain.add_norm(x.float(), wide, weight.float(), 1e-5)
        yield f"residual after {len(updates)}", error(out[0], expected[0])
        yield f"norm after {len(updates)}", error(out[1], expected[1])


def check_attention() -> Iterator[tuple[str, float]]:
    """Rotation, cache write and attention, at several lengths, next to garbage in unfilled rows."""
    slots = torch.tensor([2, 0], device="cuda")
    rotary = randn(SEQUENCE, WIDTH)
    for length in (1, 4, 16, 64, 200):
        keys, values = randn(3, KV_HEADS, SEQUENCE, WIDTH), randn(3, KV_HEADS, SEQUENCE, WIDTH)
        wide_keys, wide_values = keys.float(), values.float()
        qkv = randn(2, length, (HEADS + 2 * KV_HEADS) * WIDTH)
        norms = randn(WIDTH), randn(WIDTH)
        starts = torch.tensor([[3], [FILLED]], device="cuda")
        positions = starts + torch.arange(length, device="cuda")
        query = fused.norm_rotate_store(qkv, *norms, 1e-5, rotary, positions, slots, keys, values)
        wide = (qkv.float(), norms[0].float(), norms[1].float(), 1e-5, rotary.float())
        expected = plain.norm_rotate_store(*wide, positions, slots, wide_keys, wide_values)
        yield f"query {length}", error(query, expected)
        yield f"keys {length}", error(keys, wide_keys)
        yield f"values {length}", error(values, wide_values)
        out = fused.attend(query, keys, values, positions, slots)
        reference = plain.attend(query.float(), keys.float(), values.float(), positions, slots)
        yield f"attention {length}", error(out, reference)


def check_rows() -> Iterator[tuple[str, float]]:
    """0 where a row's result does not depend on how many rows share the call."""
    x, weight = randn(64, DIM), randn(6144, DIM, std=DIM**-0.5)
    long, deep = randn(64, FFN), randn(DIM, FFN, std=FFN**-0.5)
    for rows in (1, 2, 8, 16, 17, 32, 33):
        for name, left, right, gated in (
            ("K 4096", x, weight, False),
            ("gated", x, weight, True),
            ("K 14336", long, deep, False),
        ):
            same = torch.equal(
                few_rows_linear(left, right, gated=gated)[:rows],
                few_rows_linear(left[:rows].contiguous(), right, gated=gated),
            )
            yield f"rows {rows} of 64, {name}", float(not same)
    keys, values = randn(1, KV_HEADS, SEQUENCE, WIDTH), randn(1, KV_HEADS, SEQUENCE, WIDTH)
    query, slots = randn(1, 64, HEADS, WIDTH), torch.zeros(1, dtype=torch.int64, device="cuda")
    for start in (5, 299, FILLED, FILLED + 100):
        last = torch.arange(start, start + 64, device="cuda")[None]
        whole = fused.attend(query, keys, values, last, slots)
        for length in (1, 2, 4, 8, 16, 32):
            windows = zip(torch.split(query, length, 1), torch.split(last, length, 1), strict=True)
            parts = [fused.attend(q.contiguous(), keys, values, seen, slots) for q, seen in windows]
            yield f"attention at {start} by {length}", float(not torch.equal(torch.cat(parts, 1), whole))


def check_sampler() -> Iterator[tuple[str, float]]:
    """Share of draws that differ from the plain sampler's."""
    for spread in (0.5, 2.0, 4.0, 10.0):
        logits = randn(48, VOCABULARY, dtype=torch.float32, std=spread)
        seeds = torch.randint(-(2**62), 2**62, (48,), device="cuda")
        positions = torch.randint(0, SEQUENCE, (48,), device="cuda")
        temperatures = torch.linspace(0, 2, 48, device="cuda")
        top_ps = torch.rand(48, device="cuda").clamp(min=0.01)
        arguments = (logits, seeds, positions, temperatures, top_ps)
        host = nucleus.sample(*(argument.cpu() for argument in arguments))
        yield (
            f"draws, spread {spread}",
            (fused_nucleus.sample(*arguments).cpu() != host).float().mean().item(),
        )


def time_linear() -> Iterator[dict[str, Any]]:
    shapes = {
        "qkv": (6144, DIM, False),
        "out": (DIM, DIM, False),
        "gate_up": (2 * FFN, DIM, True),
        "down": (DIM, FFN, False),
        "logits": (VOCABULARY, DIM, False),
    }
    for name, (outer, inner, gated) in shapes.items():
        copies = max(2, 300_000_000 // (2 * outer * inner) + 1)
        weights = [randn(outer, inner, std=inner**-0.5) for _ in range(copies)]
        for rows in (1, 8, 16, 32, 64):
            x, turn, other = randn(rows, inner), cycle(weights), cycle(weights)
            dtype = torch.float32 if name == "logits" else None
            ours = microseconds(lambda: few_rows_linear(x, next(turn), gated=gated, dtype=dtype), 4 * copies)  # noqa: B023
            cublas = microseconds(lambda: F.linear(x, next(other)), 4 * copies)  # noqa: B023
            bound = 2 * outer * inner / 1e3
            yield {
                "what": name,
                "rows": rows,
                "ours_us": ours,
                "cublas_us": cublas,
                "ours_gigabytes_per_second": bound / ours,
                "cublas_gigabytes_per_second": bound / cublas,
            }


def time_attention() -> Iterator[dict[str, Any]]:
    """Decoding at the middle of a video; libraries are PyTorch's flash attention over a slice, and its
    compiled FlexAttention over the cache with a block mask."""
    for videos, window in ((1, 1), (1, 16), (1, 32), (1, 64), (4, 16), (8, 1), (16, 1), (16, 4), (32, 1)):
        keys = [randn(videos, KV_HEADS, SEQUENCE, WIDTH) for _ in range(3)]
        values = [randn(videos, KV_HEADS, SEQUENCE, WIDTH) for _ in range(3)]
        query, slots = randn(videos, window, HEADS, WIDTH), torch.arange(videos, device="cuda")
        last = (FILLED + torch.arange(window, device="cuda")).expand(videos, window).contiguous()
        turn, other = cycle(zip(keys, values, strict=True)), cycle(zip(keys, values, strict=True))
        ours = microseconds(lambda: fused.attend(query, *next(turn), last, slots), 12)  # noqa: B023

        def library() -> Tensor:
            k, v = (tensor[:, :, : FILLED + 1] for tensor in next(other))  # noqa: B023
            return F.scaled_dot_product_attention(query.transpose(1, 2), k, v, enable_gqa=True)  # noqa: B023

        bound = 4 * videos * KV_HEADS * (FILLED + window) * WIDTH / 1e3
        row = {
            "what": "attention",
            "videos": videos,
            "window": window,
            "ours_us": ours,
            "sdpa_us": microseconds(library, 12),
            "ours_gigabytes_per_second": bound / ours,
        }
        if (videos, window) in ((1, 1), (1, 64), (16, 1)):
            row["flex_us"] = microseconds_or_error(flex(query, turn), 12)
        yield row


def flex(query: Tensor, caches: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
    """Compiled FlexAttention of query [B, L, heads, D] to the next cache's rows up to each token's own."""
    length = query.shape[1]
    mask = create_block_mask(
        lambda b, h, q, kv: kv <= FILLED + q, None, None, length, SEQUENCE, device=query.device
    )
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(query.transpose(1, 2), *next(caches), block_mask=mask, enable_gqa=True)


def library_attend(query: Tensor, keys: Tensor, values: Tensor, last: Tensor, slots: Tensor) -> Tensor:
    """`Operations.attend` for one sequence and one token at position FILLED."""
    k, v = keys[:, :, : FILLED + 1], values[:, :, : FILLED + 1]
    seen = F.scaled_dot_product_attention(query.transpose(1, 2), k, v, enable_gqa=True)
    return seen.transpose(1, 2).flatten(2)


def time_network() -> Iterator[dict[str, Any]]:
    """A pass of 4B over one token, without sampling; the library is PyTorch's operations, compiled."""
    architecture = AUTOREGRESSIVE["4B"]
    network = random_network(architecture, "cuda")
    cache = KVCache(architecture, 1, text_rows=0, dtype=torch.bfloat16, device="cuda")
    cache.keys.normal_()
    cache.values.normal_()
    tokens = torch.zeros(1, 1, dtype=torch.int64, device="cuda")
    positions, slots = torch.full_like(tokens, FILLED), tokens[0]

    def step() -> Tensor:
        return network.logits(network(tokens, positions, slots, cache))

    ours = microseconds(step, 3)
    library = SimpleNamespace(**{name: getattr(plain, name) for name in fused.__all__})
    library.attend = library_attend
    for module in network.modules():
        if hasattr(module, "operations"):
            module.operations = library  # type: ignore[assignment]
    compiled = torch.compile(step, fullgraph=True)
    yield {
        "what": "network, one video",
        "ours_us": ours,
        "compiled_us": microseconds_or_error(compiled, 3),
    }


def time_rest() -> Iterator[dict[str, Any]]:
    weight, rotary, norms = randn(DIM), randn(SEQUENCE, WIDTH), (randn(WIDTH), randn(WIDTH))
    for rows in (1, 64):
        x, update = randn(rows, 1, DIM), randn(rows, 1, DIM)
        logits = randn(rows, VOCABULARY, dtype=torch.float32, std=3)
        integers, ones = torch.arange(rows, device="cuda"), torch.ones(rows, device="cuda")
        cache = randn(rows, KV_HEADS, 256, WIDTH)
        qkv = randn(rows, 1, (HEADS + 2 * KV_HEADS) * WIDTH)
        rotated = (qkv, *norms, 1e-5, rotary, integers[:, None], integers, cache, cache)
        jobs: dict[str, Callable[[], object]] = {
            "add_norm": lambda: fused.add_norm(x, (update,), weight, 1e-5),  # noqa: B023
            "norm_rotate_store": lambda: fused.norm_rotate_store(*rotated),  # noqa: B023
            "sample": lambda: fused_nucleus.sample(logits, integers, integers, ones, ones * 0.8),  # noqa: B023
            "sort": lambda: logits.sort(dim=-1, descending=True),  # noqa: B023
        }
        for name, job in jobs.items():
            yield {"what": name, "rows": rows, "us": microseconds(job, 8)}
    long_query = randn(1, 1024, HEADS, WIDTH)
    keys = randn(1, KV_HEADS, SEQUENCE, WIDTH)
    last, slots = (
        torch.arange(4096, 5120, device="cuda")[None],
        torch.zeros(1, dtype=torch.int64, device="cuda"),
    )
    yield {
        "what": "attention of a prefix chunk, 1024 at 4096",
        "us": microseconds(lambda: fused.attend(long_query, keys, keys, last, slots), 4),
    }
    k = keys[:, :, :5120]
    yield {
        "what": "the same without mask, sdpa",
        "us": microseconds(
            lambda: F.scaled_dot_product_attention(long_query.transpose(1, 2), k, k, enable_gqa=True), 4
        ),
    }


def read_speed() -> float:
    """GB/s of summing 4 GB: reads alone."""
    data = torch.empty(2**30, dtype=torch.float32, device="cuda").normal_()
    return data.nbytes / microseconds(lambda: data.sum(), 3) / 1e3


def _tables(result: dict[str, Any]) -> str:
    checks = [
        {"check": name, "relative error": value}
        for group in ("errors", "rows_matter")
        for name, value in result[group].items()
    ]
    times: dict[str, list[dict[str, Any]]] = {}
    for row in result["times"]:
        times.setdefault(" ".join(row), []).append(row)
    read = f"read {result['read_gigabytes_per_second']:.0f} GB/s"
    return "\n\n".join([table(checks), read, *map(table, times.values())])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    jobs = {"linear": time_linear, "attention": time_attention, "rest": time_rest, "network": time_network}
    parser.add_argument("--times", nargs="*", choices=jobs, default=list(jobs), help="what is timed")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    result: dict[str, Any] = {**describe("engine_kernels")}
    with torch.inference_mode():
        checks = (check_linear, check_norm, check_attention, check_sampler)
        result["errors"] = {name: value for check in checks for name, value in check()}
        result["rows_matter"] = dict(check_rows())
        result["read_gigabytes_per_second"] = read_speed()
        result["times"] = [row for name in options.times for row in jobs[name]()]
    finish(_tables(result), result, options.output)
    wrong = [name for name, value in result["errors"].items() if not value <= TOLERANCE]
    if wrong:
        raise SystemExit(f"over {TOLERANCE}: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
