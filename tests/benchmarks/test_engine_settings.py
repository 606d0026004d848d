"""The scan of the kernels' settings: what it tries can run, and nothing of it stays behind."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # as in the kernels' own tests; read on import
pytest.importorskip("triton", reason="the Triton compiler is not installed")

from benchmarks.engine_settings import CASES, FIELDS, MATRICES, SETTINGS, best, changed
from cosmos_triton.autoregressive.kernels import attention, linear

TRIED = [
    (case, kernel, setting)
    for case, kernels in SETTINGS.items()
    for kernel, settings in kernels.items()
    for setting in settings
]


def test_settings_fit_the_kernels() -> None:
    assert len(set(TRIED)) == len(TRIED)
    assert set(SETTINGS) == set(CASES)
    for case, kernel, setting in TRIED:
        named = dict(zip(FIELDS[kernel], setting, strict=True))
        assert named.get("prefetched", 0) & (named.get("prefetched", 0) - 1) == 0, (case, kernel, setting)
        if kernel == "attention":
            assert named["split"] % attention._BLOCK_S == 0
            assert named["prefetched"] <= named["split"]
        if kernel in MATRICES:
            assert MATRICES[kernel][1] % named["block_k"] == 0


def test_a_change_ends() -> None:
    shapes = (64, 4096, 14336, False), (64, 6144, 4096, False)
    before = attention._SPLIT, attention.tiling(16, 1), *(linear.tiling(*shape) for shape in shapes)
    with changed("attention", (384, 64, 2, 5, 32)), changed("down", (1, 2, 3, 4, 5)):
        assert (attention._SPLIT, attention._MOST_M, attention.tiling(16, 1)) == (384, 64, (2, 5, 32))
        assert [linear.tiling(*shape) for shape in shapes] == [(1, 2, 3, 4, 5), before[-1]]
    after = attention._SPLIT, attention.tiling(16, 1), *(linear.tiling(*shape) for shape in shapes)
    assert after == before


def test_best_shares_products_and_keeps_splits_apart() -> None:
    trials = [
        {"case": case, "kernel": kernel, "setting": setting, "of_present": share}
        for case, kernel, setting, share in (
            ("one_video", "down", [1], 0.99),
            ("one_video", "down", [2], 0.98),
            ("one_video", "out", [3], 0.9995),
            ("sixteen_videos", "attention", [512, 1], 1.1),
            ("sixteen_videos", "attention", [576, 1], 0.9),
            ("window_64", "attention", [512, 2], 0.5),
        )
    ]
    assert best(trials, "sixteen_videos", 512) == {"down": (2,), "attention": (512, 1)}
