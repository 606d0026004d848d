"""The full posture on a GPU: the same verdicts as on the CPU, and memory given back.

Needs a GPU, cosmos-guardrail and torchvision: `pytest -m full_guardrails`.
"""

from pathlib import Path

import numpy as np
import pytest

from cosmos_triton.guardrails import GuardrailSettings, load_prompt_guardrail, load_video_guardrail
from cosmos_triton.residency.policy import Residency

pytestmark = [
    pytest.mark.full_guardrails,
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # retinaface's use of torchvision
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

FRAMES = np.random.default_rng(0).integers(0, 256, (33, 160, 256, 3), np.uint8)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support import published_models

    return published_models.write_all(tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.parametrize("residency", list(Residency))
def test_a_gpu_gives_the_same_verdicts(published: Path, residency: Residency):
    import torch

    settings = GuardrailSettings("full", published, "cuda:0", residency)
    before = torch.cuda.memory_allocated()
    prompts, videos = load_prompt_guardrail(settings), load_video_guardrail(settings)
    on_cpu = load_video_guardrail(GuardrailSettings("full", published))
    assert prompts.check("A robot arm lifts a red cube").checks["text_guard"] == "passed"
    frames, verdict = videos.apply(FRAMES)
    expected, told = on_cpu.apply(FRAMES)
    assert verdict.checks == told.checks
    assert np.array_equal(frames, expected)
    if residency is Residency.OFFLOAD:
        assert torch.cuda.memory_allocated() == before
