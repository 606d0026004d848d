"""Commands are all that a runner needs: sent to another process, they make the same tokens there."""

import pickle

import numpy as np
import pytest
import torch

from cosmos_triton.autoregressive.commands import Decode, Prefill, Start
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.runner import Runner
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer
from support.engines import BASE, TEXT_ROWS, VIDEO2WORLD


def start(net: AutoregressiveTransformer, slot: int, length: int) -> Start:
    generator = np.random.default_rng(slot)
    text = None
    if net.architecture.is_video2world:
        text = generator.standard_normal((TEXT_ROWS, 24)).astype(np.float32)
    return Start(slot, generator.integers(0, 96, length), text, SamplingParameters(slot, 1.0, 0.8))


@pytest.mark.parametrize("net", [BASE, VIDEO2WORLD], ids=["base", "video2world"])
@torch.inference_mode()
def test_runners_with_the_same_commands_draw_the_same_tokens_without_talking(
    net: AutoregressiveTransformer,
) -> None:
    """Noise is keyed by seed, position and token, so nothing about a draw needs to be agreed on."""
    commands = [
        start(net, 2, 30),
        Prefill(2, 0, 20),
        Prefill(2, 20, 29),
        Decode((2,)),
        start(net, 0, 7),
        Prefill(0, 0, 6),
        *[Decode((2, 0))] * 6,
        Decode((0,)),
    ]
    runners = [Runner(net, EngineSettings(max_videos=3, window=3, text_rows=TEXT_ROWS)) for _ in range(2)]
    for command in commands:
        for runner, received in zip(runners, (command, pickle.loads(pickle.dumps(command))), strict=True):
            if isinstance(received, Start):
                runner.start(received)
            else:
                launched = runner.launch(received)
    reached = launched.wait()
    here, there = (runner.sequences for runner in runners)
    assert torch.equal(here.tokens, there.tokens)
    assert torch.equal(here.positions, there.positions)
    assert reached == {0: here.positions[0].item()}
    assert 7 + 7 <= reached[0] + 1 <= 7 + 3 * 7


def test_a_prefill_has_no_positions_to_report() -> None:
    runner = Runner(BASE, EngineSettings(max_videos=1))
    runner.start(start(BASE, 0, 5))
    assert runner.launch(Prefill(0, 0, 4)).wait() == {}
