"""The training loop: it learns, stops in time, and goes on where it left off."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from small_world.loop import Plan, train


class _Line:
    """A stage that learns a number."""

    captured = True

    def __init__(self) -> None:
        self.network: nn.Module = nn.Linear(1, 1)
        self.x = torch.ones(1, 1)

    def next_batch(self, step: int) -> None:
        self.x.fill_(1)

    def loss(self) -> tuple[Tensor, Tensor]:
        loss = (self.network(self.x) - 3).square().mean()
        return loss, loss[None]

    def log(self, values: list[float]) -> dict[str, float]:
        return {"loss": values[0]}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        return {"value": float(network(self.x))}

    def result(self, network: nn.Module) -> dict[str, Tensor]:
        return {n: p.detach().bfloat16() for n, p in network.named_parameters()}


def test_a_stage_is_trained_in_two_sessions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plan = Plan(minutes=0.05, rate=0.05, average=0.9, log_every=10, session_minutes=0.02)
    said: list[str] = []

    train(_Line(), plan, tmp_path, "line", said.append)
    assert not (tmp_path / "line.pt").exists()
    for _ in range(2):
        train(_Line(), plan, tmp_path, "line", said.append)

    measures = json.loads((tmp_path / "line.json").read_text())
    assert abs(measures["value"] - 3) < 0.1
    log = [json.loads(line) for line in (tmp_path / "line.log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in log]
    assert steps == sorted(set(steps))
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["rate"] < 0.2
    assert torch.load(tmp_path / "line.pt")["weight"].dtype == torch.bfloat16
