"""What half precision does to the networks that become TensorRT plans, against float32.

    python -m benchmarks.precision --output benchmarks/results/precision-full-cpu.json

Published widths, seeded random weights, a small frame, on the CPU. Says how many token ids change,
and how far pixels move; a GPU rounds differently in the last bit, not in kind. Prints a table;
the last line is one JSON document.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.result import describe, finish, table
from cosmos_triton.architectures import CONTINUOUS_TOKENIZERS, DISCRETE_TOKENIZERS
from cosmos_triton.checkpoints import CheckpointFolder
from cosmos_triton.demo import write_tokenizer
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.pipeline import NETWORKS, Network
from cosmos_triton.runtimes import example_inputs, load_module

VIDEO = VideoGeometry(33, 64, 96)
MEASURED = ("video_encoder", "video_decoder", "latent_decoder")
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = _checkpoint(Path(place))
        results = [row for network in MEASURED for row in _measure(network, folder)]
    result = {
        **describe("precision"),
        "what": f"published widths, random weights, {VIDEO.frames}x{VIDEO.height}x{VIDEO.width}",
        "results": results,
    }
    finish(table(results), result, options.output)


def _checkpoint(place: Path) -> CheckpointFolder:
    for architecture in (DISCRETE_TOKENIZERS["DV8x16x16"], CONTINUOUS_TOKENIZERS["CV8x8x8"]):
        directory = place / architecture.name
        directory.mkdir()
        write_tokenizer(architecture, directory, seed=0)
    return CheckpointFolder(place)


def _measure(name: str, folder: CheckpointFolder) -> Iterator[dict[str, Any]]:
    network = NETWORKS[name]
    sizes = network.sizes(VIDEO, folder.component(network.component).architecture)
    inputs = tuple(example_inputs(network, sizes).values())
    exact = _run(network, folder, torch.float32, inputs)
    for precision, dtype in PRECISIONS.items():
        with _pooling_in_float32():
            rounded = _run(network, folder, dtype, inputs)
        difference = (rounded.int() - exact.int()).abs()
        row = {"network": name, "precision": precision}
        if exact.dtype == torch.int32:
            yield row | {"ids_differing": round(float((difference > 0).float().mean()), 4)}
        else:
            yield row | {
                "pixels_off_by_more_than_1": round(float((difference > 1).float().mean()), 4),
                "mean_levels": round(float(difference.float().mean()), 3),
                "max_levels": int(difference.max()),
            }


def _run(
    network: Network, folder: CheckpointFolder, dtype: torch.dtype, inputs: tuple[Tensor, ...]
) -> Tensor:
    with torch.inference_mode():
        output: Tensor = load_module(network, folder, dtype)(*inputs)
    return output


@contextmanager
def _pooling_in_float32() -> Iterator[None]:
    """PyTorch has no average pooling in half precision on a CPU; the mean is rounded once either way."""
    original = F.avg_pool3d
    F.avg_pool3d = lambda x, **options: original(x.float(), **options).to(x.dtype)  # type: ignore[assignment]
    try:
        yield
    finally:
        F.avg_pool3d = original


if __name__ == "__main__":
    main()
