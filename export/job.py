"""What an export is asked for, and what came of it. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from cosmos_triton.geometry import VideoGeometry
from export.parity import Agreement


@dataclass(frozen=True)
class ExportJob:
    """What to export and where to.

    Args:
        checkpoint: folder of checkpoints.
        output: folder of the ONNX files.
        video: the size of video; None takes that of the folder's autoregressive models.
        force: export again what is there already.
        threads: of one network's comparison; 0 takes one per core.
    """

    checkpoint: Path
    output: Path
    video: VideoGeometry | None = None
    force: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Exported:
    """What became of one network.

    Args:
        network: its name.
        path: the file.
        seconds: it took.
        agreement: with PyTorch; None for a file that was there already.
    """

    network: str
    path: Path
    seconds: float
    agreement: Agreement | None

    @property
    def holds(self) -> bool:
        """Whether the file may be used."""
        return self.agreement is None or self.agreement.holds


def run(network: str, job: ExportJob) -> Exported:
    """`export.pipeline.export_onnx`, for a process that has yet to import torch."""
    from export.pipeline import export_onnx

    return export_onnx(network, job)
