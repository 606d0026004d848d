import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from cosmos_triton.residency.turn import Turn, turn

CPU = torch.device("cpu")


def test_only_one_has_the_turn_and_a_ticket_keeps_its_number(own_queue: Path) -> None:
    first, second, third = Turn(CPU), Turn(CPU), Turn(CPU)
    assert not third.come(wait=False)
    assert not second.come(wait=False)
    assert first.come(wait=False)
    assert first.come(wait=True)
    first.end()
    assert not third.come(wait=False)
    second.end()  # gives up its ticket
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
