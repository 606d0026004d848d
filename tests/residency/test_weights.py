"""Weights that come and go: the network computes the same, and holds nothing in between."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
import torch
from torch import nn

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.residency.weights import BlockStream, Pack, Residency, Turn, turn
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


def test_a_pack_keeps_names_types_shapes_and_values() -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randint(0, 9, (7,), dtype=torch.int32),
        "c": torch.randn(2, 4).to(torch.float8_e4m3fn),
        "d": torch.tensor(2.5, dtype=torch.bfloat16),
    }
    pack = Pack.of(tensors)
    copied = pack.views(pack.buffer.clone())
    assert list(copied) == list(tensors)
    for name, tensor in tensors.items():
        assert copied[name].dtype == tensor.dtype
        assert torch.equal(copied[name].float(), tensor.float())
        assert copied[name].data_ptr() % tensor.element_size() == 0


@pytest.mark.parametrize("slots", [2, 3, 8])
def test_blocks_stream_in_a_circle(slots: int) -> None:
    packs = [Pack.of({"weight": torch.full((index + 1,), float(index))}) for index in range(5)]
    stream = BlockStream(packs, CPU, slots)
    stream.open()
    for _ in range(3):
        for index in range(5):
            assert stream.take(index)["weight"].tolist() == [float(index)] * (index + 1)
            stream.give_back()
    with pytest.raises(RuntimeError, match="block 2 was taken when 0 was due"):
        stream.take(2)
    stream.close()


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


def test_a_wrong_residency_is_named() -> None:
    with pytest.raises(ConfigurationError, match="COSMOS_RESIDENCY='lazy' is neither resident nor offload"):
        Residency.parse("lazy", "COSMOS_RESIDENCY")


def test_a_pack_takes_no_more_than_its_tensors_need() -> None:
    pack = Pack.like({"a": torch.empty(1000, 1000), "b": torch.empty(3)})
    assert 4_000_012 <= pack.nbytes <= 4_000_012 + 256
    assert len(pack.pages) == pack.nbytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_pack_is_pinned_for_as_long_as_it_is_used() -> None:
    tensors = {"a": torch.randn(1000, 1000), "b": torch.arange(5)}
    for _ in range(20):  # each is likely to lie where the one before it did
        pack = Pack.of(tensors)
        assert pack.buffer.is_pinned()
        views = pack.views(pack.buffer)
        del pack
        for name, tensor in tensors.items():
            assert views[name].is_pinned()
            assert torch.equal(views[name].to("cuda", non_blocking=True).cpu(), tensor)
        del views


@pytest.fixture
def own_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The turns of this test are no one else's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of other processes
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_only_one_has_the_turn_and_a_place_in_the_queue_is_kept(own_queue: Path) -> None:
    first, second, third = Turn(CPU), Turn(CPU), Turn(CPU)
    assert not third.come(wait=False)
    assert not second.come(wait=False)
    assert first.come(wait=False)
    assert first.come(wait=True)
    first.end()
    assert not third.come(wait=False)
    second.end()  # gives up its place
    assert third.come(wait=False)
    third.end()
    with turn(CPU):
        waiting = Turn(CPU)
        assert not waiting.come(wait=False)
    assert waiting.come(wait=False)
    waiting.end()


def _take_a_turn(name: str, arrived: Path, order: Path) -> None:
    mine = Turn(CPU)
    arrived.touch()
    mine.come(wait=True)
    with order.open("a") as file:
        file.write(name)
    mine.end()


def test_processes_take_turns_in_the_order_they_came(own_queue: Path) -> None:
    """Nor does one that asks again at once overtake those that wait."""
    order = own_queue / "order"
    mine = Turn(CPU)
    assert mine.come(wait=False)
    processes = []
    for name in "abc":
        arrived = own_queue / name
        processes.append(_started(_take_a_turn, name, arrived, order))
        _until(arrived.exists)
    again = Turn(CPU)
    mine.end()
    again.come(wait=True)
    assert order.read_text() == "abc"
    again.end()
    for process in processes:
        process.join(60)


def _hold_for_ever(arrived: Path) -> None:
    with turn(CPU):
        arrived.touch()
        time.sleep(600)


def test_a_process_that_dies_holds_up_nobody(own_queue: Path) -> None:
    arrived = own_queue / "arrived"
    process = _started(_hold_for_ever, arrived)
    _until(arrived.exists)
    mine = Turn(CPU)
    assert not mine.come(wait=False)
    process.kill()
    process.join(60)
    assert mine.come(wait=False)
    mine.end()


def _started(work: Callable[..., None], *arguments: object) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
