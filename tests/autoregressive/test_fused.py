"""The kernels against the plain operations: on a GPU, or in the compiler's interpreter on a CPU."""

import os

import pytest
import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the compiler is imported
pytest.importorskip("triton", reason="the Triton compiler is not installed")

from cosmos_triton.autoregressive import fused, plain  # noqa: E402

pytestmark = [  # the interpreter divides unused lanes by 0, and reads scalars in a way numpy deprecates
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).norm() / expected.double().norm()
    assert error < 1e-5  # float32 throughout; NaN is not below


@pytest.mark.parametrize("rows", [1, 6, 17, 64, 70])
def test_products(rows: int) -> None:
    x, weight, double = randn(1, rows, 64), randn(96, 64, seed=1), randn(160, 64, seed=2)
    assert_near(fused.linear(x, weight), plain.linear(x, weight))
    assert_near(fused.gated_linear(x, double), plain.gated_linear(x, double))
    assert_near(fused.project(x, weight), plain.project(x, weight))


@pytest.mark.parametrize("updates", [0, 1, 2])
def test_norm(updates: int) -> None:
    x, weight = randn(2, 3, 48), randn(48, seed=1)
    added = tuple(randn(2, 3, 48, seed=2 + index) for index in range(updates))
    for actual, expected in zip(
        fused.add_norm(x, added, weight, 1e-5), plain.add_norm(x, added, weight, 1e-5), strict=True
    ):
        assert_near(actual, expected)


@pytest.mark.parametrize(
    ("length", "sequence"), [(1, 700), (3, 128), (3, 700), (16, 128), (20, 700), (70, 700)]
)
def test_rotation_cache_and_attention(length: int, sequence: int) -> None:
    """Slots in any order, positions anywhere, garbage in unfilled rows, several splits and a ragged end."""
    keys, values = randn(5, 2, sequence, 16, seed=1), randn(5, 2, sequence, 16, seed=2)
    plain_keys, plain_values = keys.clone(), values.clone()
    qkv, rotary, norms = (
        randn(2, length, 12 * 16),
        randn(sequence, 16),
        (randn(16, seed=3), randn(16, seed=4)),
    )
    starts = torch.tensor([[5], [sequence - 90]], device=DEVICE)
    positions, slots = starts + torch.arange(length, device=DEVICE), torch.tensor([3, 1], device=DEVICE)
    arguments = (qkv, *norms, 1e-5, rotary, positions, slots)
    query = fused.norm_rotate_store(*arguments, keys, values)
    assert_near(query, plain.norm_rotate_store(*arguments, plain_keys, plain_values))
    assert_near(keys, plain_keys)
    assert torch.equal(values, plain_values)
    assert_near(
        fused.attend(query, keys, values, positions, slots),
        plain.attend(query, keys, values, positions, slots),
    )
