"""What loading costs in memory, seen from outside a process that does nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

MiB = 1 << 20
SIDE, LAYERS = 1024, 24
FILE = LAYERS * SIDE * SIDE * 4  # 96 MiB in fp32

LOAD = f"""
import resource, sys
from pathlib import Path
import torch
from torch import nn
from cosmos_triton.checkpoints.files import read_tensors
from cosmos_triton.checkpoints.strict import assign_strictly

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with torch.device("meta"):
    network = nn.Sequential(*(nn.Linear({SIDE}, {SIDE}, bias=False) for _ in range({LAYERS})))
before = peak()
tensors = read_tensors(Path(sys.argv[1]))
print(peak() - before)
assign_strictly(network, tensors, what="file", dtype=getattr(torch, sys.argv[2]))
total = sum(parameter.double().sum().item() for parameter in network.parameters())
print(peak() - before)
print(total)
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {f"{layer}.weight": torch.full((SIDE, SIDE), float(layer)) for layer in range(LAYERS)}


@pytest.mark.parametrize(
    ("container", "dtype", "kept"),
    [
        ("zip", "float32", FILE),
        ("zip", "bfloat16", FILE // 2),
        ("old", "bfloat16", FILE // 2),
        ("safetensors", "bfloat16", FILE // 2),
    ],
)
def test_loading_costs_what_is_kept(
    tmp_path: Path, weights: dict[str, torch.Tensor], container: str, dtype: str, kept: int
) -> None:
    path = tmp_path / "model.pt"
    if container == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=container == "zip")
    command = [sys.executable, "-c", LOAD, str(path), dtype]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    opened, loaded, total = (float(line) for line in result.stdout.split())
    assert opened < 16 * MiB, "reading maps the file and does not load it"
    assert loaded < kept + 24 * MiB, "beside what is kept there is one tensor at a time"
    assert total == sum(range(LAYERS)) * SIDE * SIDE, "released pages come back from the file"
