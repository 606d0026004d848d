"""The kernels around a decode pass against the plain steps: on a GPU, or interpreted on a CPU."""

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the compiler is imported
pytest.importorskip("triton", reason="the Triton compiler is not installed")

from cosmos_triton.autoregressive import plain_steps  # noqa: E402
from cosmos_triton.autoregressive.kernels import steps as fused_steps  # noqa: E402
from cosmos_triton.autoregressive.parameters import SamplingParameters  # noqa: E402
from cosmos_triton.autoregressive.sequences import Sequences  # noqa: E402
from cosmos_triton.autoregressive.settings import DRAFT_SOURCES  # noqa: E402
from support.tiny_autoregressive import architecture  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the interpreter reads scalars so

ARCHITECTURE = architecture(video2world=True)


def sequences(window: int) -> Sequences:
    """Five slots at different positions, one of them at its end."""
    state = Sequences.allocate(ARCHITECTURE, 5, window, torch.device(DEVICE))
    for slot, length in enumerate((1, 50, 118, 120, 121)):
        prefix = torch.randint(0, 96, (length,), generator=torch.Generator().manual_seed(slot))
        state.start(slot, prefix.to(DEVICE), SamplingParameters(slot - 2, 0.5 * slot, 0.2 * (slot + 1)))
    return state


@pytest.mark.parametrize("window", [1, 3, 16])
def test_gather(window: int) -> None:
    slots = torch.tensor([4, 0, 2], device=DEVICE)
    arguments = (sequences(window), slots, window, ARCHITECTURE)
    actual, expected = fused_steps.gather(*arguments), plain_steps.gather(*arguments)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(actual, name), value), name


@pytest.mark.parametrize("draft_source", DRAFT_SOURCES)
@pytest.mark.parametrize("window", [1, 3, 16])
def test_accept(window: int, draft_source: str) -> None:
    slots = torch.tensor([4, 1, 2, 0], device=DEVICE)
    fed = torch.randint(0, 3, (4, window), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    drawn = fed.roll(-1, dims=1)  # right but for the last, and then not
    drawn[1, window // 2] += 1
    drawn[2, 0] += 1
    states = sequences(window), sequences(window)
    for state, steps in zip(states, (fused_steps, plain_steps), strict=True):
        steps.accept(state, slots, fed, drawn, ARCHITECTURE, draft_source)
    assert torch.equal(states[0].positions, states[1].positions)
    assert torch.equal(states[0].tokens, states[1].tokens)


@pytest.mark.parametrize("spread", [0.3, 3.0, 10.0])
def test_sample(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 5003, generator=generator) * spread
    seeds = torch.randint(-(2**62), 2**62, (12,), generator=generator)
    positions = torch.randint(0, 12_800, (12,), generator=generator)
    temperatures = torch.cat([torch.tensor([0.0, 1e-35]), torch.rand(10, generator=generator) * 2])
    top_ps = torch.rand(12, generator=generator).clamp(min=0.01)
    arguments = [each.to(DEVICE) for each in (logits, seeds, positions, temperatures, top_ps)]
    assert torch.equal(fused_steps.sample(*arguments), plain_steps.sample(*arguments))
