import os
from pathlib import Path

import pytest

from cosmos_triton.host import Gpu, chosen, visible_gpus

LISTING = """\
0, GPU-aaaa-1111, 9.0, 580.159.04, 81559 MiB, NVIDIA H100 80GB HBM3
1, GPU-bbbb-2222, 8.9, 580.159.04, 23034 MiB, NVIDIA L4
"""


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<END\n{LISTING}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    first, second = visible_gpus({})
    assert first == Gpu("NVIDIA H100 80GB HBM3", "9.0", "580.159.04", "81559 MiB")
    assert second.compute_capability == "8.9"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == ()


@pytest.mark.parametrize(
    ("visible", "capabilities"),
    [
        (None, ["9.0", "8.9"]),
        ("1", ["8.9"]),
        ("0,1", ["9.0", "8.9"]),
        ("GPU-aaaa", ["9.0"]),
        ("", []),
        ("-1", []),
        ("MIG-whatever", ["9.0", "8.9"]),
    ],
)
def test_cuda_visible_devices_chooses(visible: str | None, capabilities: list[str]) -> None:
    assert [gpu.compute_capability for gpu in chosen(LISTING, visible)] == capabilities
