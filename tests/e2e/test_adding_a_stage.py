"""The steps of "How to add a stage" in docs/architecture.md, taken in a copy of the repository and served."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelEnsembling

from cosmos_client import CosmosClient
from cosmos_triton.server.launch import Server, ServerSettings, free_ports

pytestmark = pytest.mark.triton

ENSEMBLE = "cosmos_base_fast"
COPIED = ("src", "client", "export", "model_repository", "docs/architecture.md", "tests/contract")

CALLABLE = '''
from cosmos_triton.serving.stages import StageResult


class VideoFlip:
    """Mirrors a world from left to right."""

    def __init__(self, settings):
        pass

    def __call__(self, inputs):
        """`frames` UINT8 [33,H,W,3] → `flipped` of the same shape."""
        return StageResult({"flipped": inputs["frames"][:, :, ::-1].copy()}, {"flip": "left to right"})
'''

CONFIG = """
name: "video_flip"
backend: "python"
max_batch_size: 0

input [
  { name: "frames" data_type: TYPE_UINT8 dims: [ 33, -1, -1, 3 ] },
  { name: "report" data_type: TYPE_STRING dims: [ 1 ] }
]
output [
  { name: "flipped" data_type: TYPE_UINT8 dims: [ 33, -1, -1, 3 ] },
  { name: "report" data_type: TYPE_STRING dims: [ 1 ] }
]

instance_group [ { kind: KIND_CPU count: 1 } ]
"""

MODEL = """
from cosmos_triton.serving import StageModel, VideoFlip


class TritonPythonModel(StageModel):
    stage = VideoFlip
"""

FACE = "from .stages.flip import VideoFlip as VideoFlip\n"

ROW = "| `video_flip` | `frames` UINT8; `report` BYTES [1] | `flipped` UINT8; `report` BYTES [1] | Python |\n"


@pytest.fixture(scope="module")
def copy(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the stage `video_flip` before the media encoder of one ensemble."""
    root = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = repository / name
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
    write(root / "src/cosmos_triton/serving/stages/flip.py", CALLABLE)
    insert_before(root / "src/cosmos_triton/serving/__init__.pyi", "from .stages.guardrails", FACE)
    model = root / "model_repository" / "video_flip"
    write(model / "config.pbtxt", CONFIG)
    write(model / "configs" / "cpu.pbtxt", CONFIG)
    write(model / "1" / "model.py", MODEL)
    name_in_pipeline(root / "src/cosmos_triton/pipeline.py")
    add_step(root / "model_repository" / ENSEMBLE / "config.pbtxt")
    insert_before(root / "docs/architecture.md", "| `media_encoder` |", ROW)
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def insert_before(path: Path, place: str, text: str, after: str = "") -> None:
    """Insert text before the one place, or the first that follows `after`."""
    content = path.read_text()
    index = content.index(place, content.index(after))
    path.write_text(content[:index] + text + content[index:])


def name_in_pipeline(path: Path) -> None:
    insert_before(path, 'Stage("media_encoder")', 'Stage("video_flip"),\n        ')
    insert_before(path, '"media_encoder"', '"video_flip", ', after=f'"{ENSEMBLE}"')


def add_step(path: Path) -> None:
    """Between the guardrail and the media encoder, which is last."""
    config = text_format.Parse(path.read_text(), ModelConfig())
    *before, encoder = config.ensemble_scheduling.step
    guardrail = before[-1]
    flip = ModelEnsembling.Step(
        model_name="video_flip",
        model_version=-1,
        input_map={"frames": "_unflipped", "report": guardrail.output_map["report"]},
        output_map={"flipped": encoder.input_map["frames"], "report": "_flip_report"},
    )
    guardrail.output_map["safe_frames"] = "_unflipped"
    encoder.input_map["report"] = "_flip_report"
    changed = ModelEnsembling(step=[*before, flip, encoder])
    config.ensemble_scheduling.CopyFrom(changed)
    path.write_text(text_format.MessageToString(config))


@pytest.fixture(scope="module")
def python(copy: Path) -> Path:
    """An interpreter whose packages are those of this one, and the copy's instead of ours.

    Triton's Python backend runs the first python3 on PATH and does not look at PYTHONPATH.
    """
    venv.create(copy / ".venv", symlinks=True)
    (packages,) = (copy / ".venv").glob("lib/python*/site-packages")
    ours = [copy / name for name in ("src", "client", "export")]
    theirs = [entry for entry in sys.path if entry.endswith("site-packages")]
    (packages / "paths.pth").write_text("\n".join(map(str, [*ours, *theirs])))
    return copy / ".venv" / "bin" / "python3"


@pytest.fixture(scope="module")
def copy_client(copy: Path, python: Path, checkpoints: Path) -> Iterator[CosmosClient]:
    """A client of a server that the copy's own command line started."""
    http, grpc, metrics = free_ports(3)
    settings = ServerSettings(
        copy / "model_repository", checkpoints, http_port=http, grpc_port=grpc, metrics_port=metrics
    )
    command = [python, "-m", "cosmos_triton", "serve", "--checkpoint-dir", checkpoints, "--profile", "cpu"]
    ports = ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
    line = list(map(str, [*command, "--ensemble", ENSEMBLE, *ports]))
    log = copy / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(line, stdout=file, stderr=file, cwd=copy, start_new_session=True)
        server = Server(settings, process)
        try:
            server.wait_until_ready(120)
            with CosmosClient(server.grpc_url, timeout_s=120) as client:
                yield client
        finally:
            server.stop()
            print(f"\n--- end of the server's log\n{log.read_text()[-4000:]}")


def test_the_contract_holds(copy: Path, python: Path) -> None:
    line = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", copy, "tests/contract"]
    done = subprocess.run(line, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_stage_is_served(client: CosmosClient, copy_client: CosmosClient, clip: bytes) -> None:
    plain = client.generate(clip, model=ENSEMBLE, seed=3, want_frames=True)
    flipped = copy_client.generate(clip, model=ENSEMBLE, seed=3, want_frames=True)
    np.testing.assert_array_equal(flipped.frames, plain.frames[:, :, ::-1])
    assert flipped.report["flip"] == "left to right"
    assert flipped.report["seconds"]["video_flip"] >= 0
    assert flipped.report["seconds"].keys() - plain.report["seconds"].keys() == {"video_flip"}
