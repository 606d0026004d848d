from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cosmos_export.fingerprint import file_records, fingerprint, network_files
from cosmos_export.source import Source, video_of
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.errors import CheckpointError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import NETWORKS, Network
from cosmos_triton.runtimes.examples import DTYPES

SMALL = VideoGeometry(33, 32, 48)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_modules_are_what_the_pipeline_says(network: Network, checkpoint: Path) -> None:
    source = Source(network, CheckpointFolder(checkpoint), SMALL)
    module = source.load(torch.float32)
    with torch.inference_mode():
        output = module(*source.example_inputs().values())
    assert tuple(output.shape) == network.output.shape(source.sizes)
    assert output.dtype == DTYPES[network.output.dtype]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_code_of_every_part_of_a_network_counts(network: Network, checkpoint: Path) -> None:
    module = Source(network, CheckpointFolder(checkpoint), SMALL).load(torch.float32)
    assert type(module).__module__ == network.module
    files = {str(path.with_suffix("")) for path in network_files(network.module)}
    for part in module.modules():
        package, *inner = type(part).__module__.split(".")
        if package == "cosmos_triton":
            assert any(file.endswith("/".join(inner)) for file in files), type(part)


def test_code_that_is_in_no_graph_does_not_count() -> None:
    assert {path.name for path in network_files("cosmos_triton.networks.text_encoder")} == {
        "text_encoder.py",
        "loading.py",
    }
    names = {path.name for path in network_files("cosmos_triton.diffusion.transformer")}
    assert names == {"transformer.py", "attention.py", "loading.py"}


def test_what_decides_a_graph_is_in_its_fingerprint(checkpoint: Path) -> None:
    source = Source(NETWORKS["text_encoder"], CheckpointFolder(checkpoint), SMALL)
    files = file_records(source.files, checkpoint)
    first = fingerprint(source, files, "float32", 20)
    assert fingerprint(source, files, "float32", 20) == first
    other = replace(source)
    architecture = replace(source.component.architecture, relative_buckets=16)
    vars(other)["component"] = replace(source.component, architecture=architecture)
    others = {
        fingerprint(other, files, "float32", 20),
        fingerprint(source, files[1:], "float32", 20),
        fingerprint(source, files, "bfloat16", 20),
        fingerprint(source, files, "float32", 23),
        fingerprint(replace(source, video=VideoGeometry(33, 32, 64)), files, "float32", 20),
    }
    assert len(others | {first}) == 6


def test_the_size_of_video_comes_from_the_folder(checkpoint: Path, tmp_path: Path) -> None:
    assert video_of(CheckpointFolder(checkpoint)) == VideoGeometry(33, 160, 256)
    with pytest.raises(CheckpointError, match=r"no autoregressive base model.*or give the size with --video"):
        video_of(CheckpointFolder(tmp_path))
