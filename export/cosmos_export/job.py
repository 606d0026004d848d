"""What an export is asked for, and what came of it. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from cosmos_export.parity import Agreement
from cosmos_export.tensorrt_library import TENSORRT
from cosmos_triton.geometry import VideoGeometry


@dataclass(frozen=True)
class ExportJob:
    """What to export and where to.

    Args:
        checkpoint_dir: folder of checkpoints.
        model_repository: model repository that gets plans; None to stop at float32 ONNX files.
        output_folder: folder of the ONNX files; None takes `onnx` in the checkpoint folder for float32
            files, and the folder of each network's weights for those that plans are built from.
        video: the size of video; None takes that of the folder's autoregressive models.
        force: export again what is there already.
        threads: of one network's comparison; 0 takes one per core.
        library: that builds plans.
        capabilities: compute capabilities to build for, where the library builds ahead of time.
        workspace_gib: limit of the builder's scratch memory on the GPU.
    """

    checkpoint_dir: Path
    model_repository: Path | None = None
    output_folder: Path | None = None
    video: VideoGeometry | None = None
    force: bool = False
    threads: int = 0
    library: str = TENSORRT
    capabilities: tuple[str, ...] = ()
    workspace_gib: float | None = None


@dataclass(frozen=True)
class Exported:
    """What became of one network.

    Args:
        network: its name.
        path: the file.
        seconds: it took.
        agreement: of the graph with PyTorch; None if it was not compared.
        note: what there is to say besides.
        kept: whether the file was there already.
        peak_memory: of the exporting process in bytes, pages of mapped checkpoints included.
        activation_memory: device memory one execution of the plan takes beside its weights.
    """

    network: str
    path: Path
    seconds: float
    agreement: Agreement | None
    note: str = ""
    kept: bool = False
    peak_memory: int = 0
    activation_memory: int | None = None

    @property
    def holds(self) -> bool:
        """Whether the file may be used."""
        return self.agreement is None or self.agreement.holds
