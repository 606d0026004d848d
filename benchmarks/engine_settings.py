"""Which settings of the engine's kernels are fastest: decode passes of 4B while one setting changes.

    python -m benchmarks.engine_settings --output benchmarks/results/engine-settings-4B-h100.json

Needs a GPU. First all settings are compiled, several at a time, and compared bit by bit with the present
ones; then each is timed in its place in the pass; last the best of every kernel together, for each length of
attention's splits, which all passes share. The file is written after each pass. Prints a
table; the last line is the same JSON document.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.engine import Clock, ceiling, measure_pass, random_network
from benchmarks.engine_kernels import DIM, FFN, HEADS, KV_HEADS, SEQUENCE, VOCABULARY, WIDTH
from benchmarks.result import describe, finish, table, write
from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.autoregressive import EngineSettings, Runner
from cosmos_triton.autoregressive.kernels import attention, linear
from cosmos_triton.autoregressive.kernels import nucleus as fused_nucleus

MATRICES = {  # outer, inner, gated
    "qkv": (6144, DIM, False),
    "out": (DIM, DIM, False),
    "gate_up": (FFN, DIM, True),
    "down": (DIM, FFN, False),
    "logits": (VOCABULARY, DIM, False),
}
FIELDS = {
    "attention": ("split", "most_m", "warps", "stages", "prefetched"),
    "sampler": ("scored", "checked", "stages"),
} | dict.fromkeys(MATRICES, ("block_n", "block_k", "stages", "warps", "prefetched"))
CASES = {  # videos, window, position
    "one_video": (1, 1, 8960),
    "window_64": (1, 64, 8960),
    "sixteen_videos": (16, 1, 6400),
    "window_32": (1, 32, 8960),
    "one_video_half_full": (1, 1, 6400),
    "one_video_late": (1, 1, 12000),
}
PRODUCTS_AS = {"sixteen_videos": "one_video"}  # rows are padded to the same number
WORTH_IT = 0.998  # a product or the sampler changes if the pass takes less than this share of its time

Setting = tuple[int, ...]
_WIDE: dict[str, list[Setting]] = {  # 33 to 64 rows
    "gate_up": [
        (64, 64, 4, 4, 1024),
        (64, 64, 4, 4, 512),
        (64, 64, 5, 4, 1024),
        (128, 64, 4, 8, 1024),
        (128, 64, 5, 8, 1024),
        (128, 64, 5, 8, 512),
        (128, 128, 2, 8, 1024),
        (64, 128, 3, 8, 1024),
        (64, 128, 4, 4, 1024),
        (64, 128, 3, 4, 512),
    ],
    "qkv": [
        (64, 128, 5, 4, 1024),
        (64, 64, 8, 4, 1024),
        (64, 256, 3, 4, 1024),
        (64, 128, 6, 4, 2048),
        (64, 128, 6, 8, 1024),
    ],
    "out": [
        (64, 128, 6, 4, 2048),
        (64, 256, 3, 4, 1024),
        (64, 64, 8, 4, 1024),
        (32, 128, 6, 4, 1024),
        (32, 256, 4, 4, 2048),
    ],
    "down": [
        (64, 128, 6, 4, 2048),
        (64, 256, 3, 4, 1024),
        (64, 64, 8, 4, 1024),
        (32, 256, 4, 4, 1024),
        (64, 128, 6, 8, 1024),
    ],
    "logits": [
        (128, 64, 6, 8, 1024),
        (128, 128, 4, 8, 1024),
        (64, 64, 6, 4, 1024),
        (64, 128, 4, 4, 1024),
        (64, 128, 6, 4, 512),
    ],
}
SETTINGS: dict[str, dict[str, list[Setting]]] = {
    "one_video": {
        "attention": [
            *((512, 128, 8, 3, rows) for rows in (64, 128, 256, 512)),
            *((split, 128, 8, stages, 64) for split in (576, 384, 256, 448, 640) for stages in (3, 4)),
            *((split, 128, 4, 4, 64) for split in (576, 384, 256)),
            (512, 128, 8, 4, 64),
            (576, 128, 8, 5, 64),
            (576, 128, 8, 3, 128),
            (576, 128, 8, 3, 256),
        ],
        "gate_up": [
            (64, 64, 6, 4, 1024),
            (64, 64, 5, 4, 512),
            (128, 64, 6, 8, 1024),
            (128, 64, 5, 4, 512),
            (64, 128, 4, 4, 512),
            (64, 128, 4, 4, 256),
            (32, 128, 6, 4, 512),
        ],
        "qkv": [(64, 128, 8, 4, 2048), (64, 256, 5, 4, 2048), (64, 128, 10, 4, 1024), (64, 64, 12, 4, 1024)],
        "out": [(16, 256, 6, 4, 2048), (16, 256, 6, 4, 4096), (16, 512, 4, 4, 1024), (32, 256, 8, 4, 2048)],
        "down": [(32, 256, 8, 4, 2048), (32, 256, 8, 4, 512), (32, 512, 4, 4, 1024), (16, 256, 8, 4, 1024)],
        "logits": [
            (64, 256, 5, 4, 512),
            (64, 256, 5, 4, 2048),
            (64, 128, 8, 4, 1024),
            (128, 128, 5, 8, 1024),
        ],
        "sampler": [(1024, 8192, 2), (2048, 16384, 2), (2048, 4096, 3)],
    },
    "window_64": {
        "attention": [
            *((split, 128, 8, stages, 0) for split in (576, 384, 512, 448, 640, 256) for stages in (2, 3, 4)),
            (512, 128, 8, 3, 64),
            (576, 128, 8, 3, 64),
            *((split, 64, 4, stages, 0) for split in (576, 384, 512) for stages in (2, 3)),
        ],
        "sampler": [
            (2048, 4096, 3),
            (2048, 4096, 4),
            (2048, 8192, 3),
            (2048, 8192, 4),
            (2048, 16384, 2),
            (1024, 8192, 2),
            (4096, 8192, 2),
        ],
        **_WIDE,
    },
    "sixteen_videos": {
        "attention": [
            *((split, 128, 4, stages, 0) for split in (576, 512, 384, 448, 640, 256) for stages in (2, 3)),
            (512, 128, 4, 2, 64),
            (512, 128, 8, 3, 0),
            (576, 128, 8, 3, 0),
            (576, 128, 4, 2, 64),
        ],
    },
    **{
        case: {"attention": [(split, 128, 8, 3, rows) for split in (512, 576, 384, 256) for rows in (0, 64)]}
        for case in ("one_video_half_full", "one_video_late")
    },
    "window_32": {
        "attention": [(split, 128, 8, 3, 0) for split in (512, 576, 384, 448)],
        "gate_up": [(64, 64, 4, 4, 1024), (64, 64, 5, 4, 1024), (128, 64, 5, 8, 1024), (64, 128, 4, 4, 1024)],
        "qkv": [(64, 128, 8, 4, 1024), (64, 256, 4, 4, 1024)],
        "out": [(32, 256, 6, 4, 1024), (16, 256, 6, 4, 1024), (64, 128, 8, 4, 2048)],
        "down": [(32, 256, 4, 4, 1024), (64, 256, 4, 4, 1024), (64, 128, 8, 4, 1024)],
    },
}


@dataclass(frozen=True)
class Trial:
    """One setting of one kernel, in one kind of pass."""

    case: str
    kernel: str
    setting: Setting


@contextmanager
def changed(kernel: str, setting: Setting) -> Iterator[None]:
    """The kernel with this setting instead of its own."""
    if kernel == "attention":
        split, most_m, *tile = setting
        change: Any = mock.patch.multiple(
            attention, _SPLIT=split, _MOST_M=most_m, tiling=lambda *_: tuple(tile)
        )
    elif kernel == "sampler":
        scored, checked, stages = setting
        change = mock.patch.multiple(fused_nucleus, _SCORED=scored, _CHECKED=checked, _STAGES=stages)
    else:
        present = linear.tiling

        def tiling(rows: int, outer: int, inner: int, gated: bool) -> Setting:
            tried = (outer, inner, gated) == MATRICES[kernel]
            return setting if tried else present(rows, outer, inner, gated)

        change = mock.patch.object(linear, "tiling", tiling)
    with change:
        yield


def call(trial: Trial) -> Callable[[], torch.Tensor]:
    """The trial's kernel on random inputs of the trial's number of rows."""
    generator = torch.Generator("cuda").manual_seed(0)
    videos, window, position = CASES[trial.case]

    def randn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="cuda").normal_(generator=generator)

    rows = videos * window
    if trial.kernel == "attention":
        query = randn(1, window, HEADS, WIDTH)
        keys, values = randn(1, KV_HEADS, SEQUENCE, WIDTH), randn(1, KV_HEADS, SEQUENCE, WIDTH)
        last = position + torch.arange(window, device="cuda")[None]
        slots = torch.zeros(1, dtype=torch.int64, device="cuda")
        return lambda: attention.attend(query, keys, values, last, slots)
    if trial.kernel == "sampler":
        logits, integers = randn(rows, VOCABULARY, dtype=torch.float32), torch.arange(rows, device="cuda")
        ones = torch.ones(rows, device="cuda")
        return lambda: fused_nucleus.sample(logits, integers, integers, ones, ones * 0.8)
    outer, inner, gated = MATRICES[trial.kernel]
    x, weight = randn(rows, inner), randn(2 * outer if gated else outer, inner) * inner**-0.5
    dtype = torch.float32 if trial.kernel == "logits" else None
    return lambda: linear.few_rows_linear(x, weight, gated=gated, dtype=dtype)


def compile_and_compare(trial: Trial) -> bool | str:
    """Whether the result has the bits of the present tile's, with the same split; or why it fails."""
    try:
        run = call(trial)
        with ExitStack() as stack:
            if trial.kernel == "attention":
                stack.enter_context(mock.patch.object(attention, "_SPLIT", trial.setting[0]))
            expected = run()
        with changed(trial.kernel, trial.setting):
            return torch.equal(run(), expected)
    except Exception as problem:  # out of resources, mostly
        return f"{type(problem).__name__}: {problem}"


def best(trials: list[dict[str, Any]], case: str, split: int) -> dict[str, Setting]:
    """Kernel → its fastest setting in a case; attention's among those with this split."""
    found: dict[str, tuple[float, Setting]] = {}
    for row in trials:
        kernel, setting, share = row["kernel"], tuple(row["setting"]), row["of_present"]
        at_home = row["case"] == (case if kernel in ("attention", "sampler") else PRODUCTS_AS.get(case, case))
        fits = setting[0] == split if kernel == "attention" else share < WORTH_IT
        if at_home and fits:
            found[kernel] = min(found.get(kernel, (share, setting)), (share, setting))
    return {kernel: setting for kernel, (_, setting) in found.items()}


def scan(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The result, again and again as it grows."""
    trials = [
        Trial(case, kernel, setting)
        for case, kernels in SETTINGS.items()
        for kernel, settings in kernels.items()
        for setting in settings
    ]
    began = time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        compared = dict(zip(trials, pool.map(compile_and_compare, trials), strict=True))
    clock = Clock("cuda")
    copy_speed = ceiling(clock, "cuda")
    result: dict[str, Any] = {
        **describe("engine_settings"),
        "ceiling_gigabytes_per_second": copy_speed,
        "compile_seconds": time.perf_counter() - began,
        "fields": FIELDS,
        "dropped": [asdict(t) | {"why": why} for t, why in compared.items() if why is not True],
        "present": [],
        "trials": [],
        "together": [],
    }
    yield result
    network = random_network(AUTOREGRESSIVE["4B"], "cuda")

    def milliseconds(runner: Runner, case: str) -> float:
        videos, _, position = CASES[case]
        return measure_pass(runner, videos, position, clock, copy_speed).milliseconds

    for case, (videos, window, _) in CASES.items():
        runner = Runner(network, EngineSettings(max_videos=videos, window=window))
        present = milliseconds(runner, case)
        for trial in (trial for trial, same in compared.items() if trial.case == case and same is True):
            if time.perf_counter() - began > options.seconds * 0.85:
                break
            with changed(trial.kernel, trial.setting):
                taken = milliseconds(runner, case)
            result["trials"].append(asdict(trial) | {"milliseconds": taken, "of_present": taken / present})
            yield result
        result["present"].append(
            {"case": case, "milliseconds": present, "milliseconds_afterwards": milliseconds(runner, case)}
        )
        tried = [row for row in result["trials"] if row["case"] == case and row["kernel"] == "attention"]
        for split in sorted({row["setting"][0] for row in tried}):
            chosen = best(result["trials"], case, split)
            with ExitStack() as stack:
                for kernel, setting in chosen.items():
                    stack.enter_context(changed(kernel, setting))
                row = {"case": case, "split": split, "milliseconds": milliseconds(runner, case)}
            result["together"].append(row | {"settings": chosen})
            yield result
        del runner


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--seconds", type=float, default=150, help="stop trying new settings towards this time"
    )
    parser.add_argument("--processes", type=int, default=min(16, os.cpu_count() or 1), help="that compile")
    options = parser.parse_args()
    began = time.perf_counter()
    with torch.inference_mode():
        for result in scan(options):
            write(result, options.output)
            rows = result["together"][-1:] or result["trials"][-1:]
            print(f"{time.perf_counter() - began:6.1f} s  {rows}", file=sys.stderr)
    finish(table(result["trials"]), result, options.output)


if __name__ == "__main__":
    main()
