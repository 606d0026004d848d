"""All five networks at their published size, compiled on this machine, with its memory watched.

    COSMOS_RESULTS=benchmarks/results/export-full-cpu.json \
      python -m pytest tests/export/test_full_size.py -m slow --basetemp DIR

needs 40 GiB in DIR (weight files of random numbers, and plans) and about 18 GiB of memory. With
COSMOS_RESULTS set, figures are written to that file.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.result import describe, write
from cosmos_triton.architectures import (
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
)
from cosmos_triton.checkpoints.published import (
    diffusion_decoder_shapes,
    text_encoder_shapes,
    tokenizer_shapes,
)
from cosmos_triton.runtimes.plans import PlanRecord, plan_path, record_path
from support.random_weights import write_random_weights

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")

SHAPES = {
    "discrete": lambda: tokenizer_shapes(DISCRETE_TOKENIZERS["DV8x16x16"]),
    "continuous": lambda: tokenizer_shapes(CONTINUOUS_TOKENIZERS["CV8x8x8"]),
    "diffusion": lambda: diffusion_decoder_shapes(DIFFUSION_DECODERS["7B"]),
    "text": lambda: text_encoder_shapes(TEXT_ENCODERS["t5-11b"]),
}
NETWORKS = {  # weights, and the anonymous memory in GiB that exporting and building may take at most
    "video_encoder": ("discrete", 8.0),
    "video_decoder": ("discrete", 10.0),
    "latent_decoder": ("continuous", 10.0),
    "text_encoder": ("text", 13.0),
    "diffusion_denoiser": ("diffusion", 20.0),
}
VIDEO = "33x640x1024"


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_published_size(network: str, tmp_path: Path) -> None:
    weights, limit_gib = NETWORKS[network]
    checkpoint = tmp_path / "checkpoint"
    write_random_weights(checkpoint / weights / "model.safetensors", SHAPES[weights]())
    if weights == "continuous":
        torch.save((torch.zeros(256), torch.ones(256)), checkpoint / weights / "mean_std.pt")
    repository = tmp_path / "repository"
    command = [sys.executable, "-m", "cosmos_triton", "export", "--checkpoint-dir", str(checkpoint)]
    command += [
        "--network",
        network,
        "--model-repository",
        str(repository),
        "--library",
        "tensorrt_rtx",
        "--video",
        VIDEO,
    ]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--compute-capability", "8.9"])
    peak = _watch(process)
    assert process.returncode == 0
    plan = plan_path(repository, network)
    record = PlanRecord.read(record_path(plan))
    graphs = list(checkpoint.rglob("*.onnx"))
    _record(
        {
            "network": network,
            "plan_gib": round(record.plan.size / 2**30, 2),
            "graph_mb": round(sum(graph.stat().st_size for graph in graphs) / 1e6, 1),
            "seconds": round(time.monotonic() - began, 1),
            "build_seconds": record.seconds,
            "peak_anonymous_gib": round(peak / 2**30, 2),
            "activation_gib": round((record.activation_bytes or 0) / 2**30, 2),
            "precision": record.precision,
        }
    )
    assert peak <= limit_gib * 2**30
    if record.precision == "bfloat16":  # the type of the weight files
        assert all(graph.stat().st_size < 20e6 for graph in graphs), "weights were copied, not pointed to"
        assert not list(checkpoint.rglob("*.data"))


def _watch(process: "subprocess.Popen[bytes]") -> int:
    """The largest anonymous memory of the process and its children together, in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_anonymous, _family(process.pid))))
        time.sleep(0.2)
    return peak


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0
    )


def _record(figures: dict[str, object]) -> None:
    """Add a network's figures to the result at $COSMOS_RESULTS, under a header of this run."""
    if path := os.environ.get("COSMOS_RESULTS"):
        file = Path(path)
        earlier = json.loads(file.read_text())["results"] if file.is_file() else []
        others = [row for row in earlier if row["network"] != figures["network"]]
        what = f"export and ahead-of-time build at {VIDEO}, random bf16 weights"
        write({**describe("export"), "what": what, "results": [*others, figures]}, file)
