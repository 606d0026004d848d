"""The training loop that all stages share: AdamW, an average of the weights, a log, resumable.

The learning rate follows the share of the time budget that is used, so that a stage ends where it should on
whatever machine it runs. On a GPU a step's forward and backward are captured as one CUDA graph.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_WARM_UP = 200  # steps
_LAST_RATE = 0.02  # share of the learning rate at the end
_CAPTURE_AFTER = 3  # steps before a CUDA graph is captured


class Stage(Protocol):
    """One network and its data."""

    captured: bool  # whether a step can be a CUDA graph: nothing in `loss` asks the host

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    def next_batch(self, step: int) -> None:
        """Put the data of a step where `loss` finds it; its tensors stay the same ones."""

    def loss(self) -> tuple[Tensor, Tensor]:
        """The loss, and a vector of what is logged."""

    def log(self, values: list[float]) -> dict[str, float]:
        """The logged vector by name."""

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Measures on data that training never sees."""

    def result(self, network: nn.Module) -> dict[str, Tensor]:
        """What is kept of the network: bf16 tensors on the CPU."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Args:
        minutes: of training in all, earlier sessions of the same stage counted in.
        rate: peak learning rate.
        decay: weight decay of matrices.
        average: decay of the moving average of the weights.
        session_minutes: stop after so many minutes, with the state saved; None runs to the end.
    """

    minutes: float
    rate: float = 1e-3
    decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    average: float = 0.999
    log_every: int = 50
    save_every: float = 120.0  # seconds
    session_minutes: float | None = None


def train(stage: Stage, plan: Plan, directory: Path, name: str, say: Callable[[str], None] = print) -> None:
    """Train a stage, from where `directory/NAME.state.pt` left off if it is there.

    Writes `NAME.state.pt` (to go on), `NAME.log.jsonl` and, when the time is used up, `NAME.pt` (the
    result) and `NAME.json` (its measures).
    """
    directory.mkdir(parents=True, exist_ok=True)
    network = stage.network
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(plan.average))
    average.n_averaged = average.n_averaged.cpu()  # it is read at every step
    optimizer = _optimizer(network, plan)
    state_file = directory / f"{name}.state.pt"
    step, before = _resume(state_file, network, average, optimizer)
    compute = _Step(stage)
    began = saved = time.monotonic()
    limit = min(60 * plan.minutes, before + 60 * (plan.session_minutes or math.inf))
    with (directory / f"{name}.log.jsonl").open("a") as log:
        while (elapsed := before + time.monotonic() - began) < limit:
            stage.next_batch(step)
            seen = compute(step)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            rate = _rate(step, elapsed / (60 * plan.minutes))
            for group in optimizer.param_groups:
                group["lr"] = rate * plan.rate
            optimizer.step()
            average.update_parameters(network)
            step += 1
            if step % plan.log_every == 0:
                line = {"step": step, "seconds": round(elapsed, 1), "rate": round(rate, 4)}
                line |= {k: round(v, 4) for k, v in stage.log(seen.tolist()).items()}
                log.write(json.dumps(line) + "\n")
                log.flush()
                if step % (10 * plan.log_every) == 0:
                    say(f"{name} {json.dumps(line)}")
            if time.monotonic() - saved > plan.save_every:
                _save(state_file, network, average, optimizer, step, elapsed)
                saved = time.monotonic()
    elapsed = before + time.monotonic() - began
    _save(state_file, network, average, optimizer, step, elapsed)
    if elapsed >= 60 * plan.minutes:
        with torch.no_grad():
            measures = {"steps": step, "seconds": round(elapsed, 1)} | stage.evaluate(average.module)
        (directory / f"{name}.json").write_text(json.dumps(measures, indent=2) + "\n")
        torch.save(stage.result(average.module), directory / f"{name}.pt")
        say(f"{name} {json.dumps(measures)}")


class _Step:
    """Forward and backward; from the fourth step on a GPU as one CUDA graph."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.done = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.seen = torch.zeros(0)
        self.device = next(stage.network.parameters()).device

    def __call__(self, step: int) -> Tensor:
        if self.graph is not None:
            self.graph.replay()
            return self.seen
        self.done += 1
        if self.device.type != "cuda" or not self.stage.captured:
            self._run()
        elif self.done <= _CAPTURE_AFTER:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run()
            torch.cuda.current_stream().wait_stream(stream)
        else:
            self.graph = torch.cuda.CUDAGraph()
            for parameter in self.stage.network.parameters():
                parameter.grad = None
            with torch.cuda.graph(self.graph):
                self._run()
            self.graph.replay()
        return self.seen

    def _run(self) -> None:
        for parameter in self.stage.network.parameters():
            parameter.grad = None
        loss, seen = self.stage.loss()
        self.seen = seen.detach()
        loss.backward()


def _optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": plan.decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=plan.betas, fused=trained[0].is_cuda)


def _rate(step: int, used: float) -> float:
    """Share of the peak learning rate: warm-up over steps, cosine over time."""
    cosine = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * min(used, 1.0))) / 2
    return min(1.0, (step + 1) / _WARM_UP) * cosine


def _save(
    path: Path,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    elapsed: float,
) -> None:
    content = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": elapsed,
    }
    unfinished = path.with_suffix(".partial")
    torch.save(content, unfinished)
    unfinished.replace(path)


def _resume(
    path: Path, network: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Steps and seconds already trained."""
    if not path.exists():
        return 0, 0.0
    content = torch.load(path, map_location=next(network.parameters()).device, weights_only=True)
    network.load_state_dict(content["network"])
    average.load_state_dict(content["average"])
    average.n_averaged = average.n_averaged.cpu()
    optimizer.load_state_dict(content["optimizer"])
    return int(content["step"]), float(content["seconds"])
