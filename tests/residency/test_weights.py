"""Weights that come and go: the network computes the same, and holds nothing in between."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cosmos_triton.residency.policy import Residency
from cosmos_triton.residency.turn import Turn
from cosmos_triton.residency.weights import weights_of
from cosmos_triton.runtimes.pytorch import PyTorchRuntime

CPU = torch.device("cpu")


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))
        self.register_buffer("offset", torch.arange(8.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x + self.offset


def held(module: nn.Module) -> int:
    return sum(t.numel() for t in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_offloaded_weights_compute_the_same_and_hold_nothing_between_calls(streamed: bool) -> None:
    torch.manual_seed(0)
    module = Stack().requires_grad_(False)
    x = torch.randn(4, 6)
    expected = module(x)
    everything = held(module)
    blocks = list(module.blocks) if streamed else []
    runtime = PyTorchRuntime(module, ("x",), "y", CPU, Residency.OFFLOAD, blocks)
    left = held(module)
    assert left < everything
    if not streamed:
        assert left == 0
    for _ in range(2):
        assert torch.equal(runtime.run({"x": x})["y"], expected)
        assert held(module) == left


def test_a_failed_call_leaves_the_stream_usable() -> None:
    module = Stack().requires_grad_(False)
    x = torch.randn(4, 6)
    expected = module(x)
    runtime = PyTorchRuntime(module, ("x",), "y", CPU, Residency.OFFLOAD, list(module.blocks))
    with pytest.raises(RuntimeError):
        runtime.run({"x": torch.randn(4, 5)})
    assert torch.equal(runtime.run({"x": x})["y"], expected)


def test_arrays_go_in_and_come_out() -> None:
    module = Stack().requires_grad_(False)
    x = torch.randn(4, 6)
    frozen = x.numpy().copy()
    frozen.flags.writeable = False  # as Triton's shared memory is
    outputs = PyTorchRuntime(module, ("x",), "y")({"x": frozen})
    assert torch.equal(torch.from_numpy(outputs["y"]), module(x))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_offloaded_weights_hold_the_turn_while_they_are_present(streamed: bool, own_queue: Path) -> None:
    module = Stack().requires_grad_(False)
    weights = weights_of(module, CPU, Residency.OFFLOAD, list(module.blocks) if streamed else [])
    with weights.present():
        other = Turn(CPU)
        assert not other.come(wait=False)
    assert other.come(wait=False)
    other.end()


def test_resident_weights_take_no_turn(own_queue: Path) -> None:
    with weights_of(Stack(), CPU, Residency.RESIDENT).present():
        other = Turn(CPU)
        assert other.come(wait=False)
        other.end()


def test_a_tensor_with_two_names_moves_under_both() -> None:
    module = nn.Module()
    module.first, module.second = nn.Linear(2, 2), nn.Linear(2, 2)
    module.second.weight = module.first.weight
    shared = torch.arange(3.0)
    module.register_buffer("one", shared)
    module.register_buffer("two", shared)
    module.requires_grad_(False)
    weight = module.first.weight.clone()
    weights = weights_of(module, CPU, Residency.OFFLOAD)
    assert held(module) == 0
    with weights.present():
        assert torch.equal(module.first.weight, weight)
        assert module.second.weight is module.first.weight
        assert module.one.tolist() == module.two.tolist() == [0, 1, 2]
    assert held(module) == 0
