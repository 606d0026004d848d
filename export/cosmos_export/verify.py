"""`python -m cosmos_export verify`: plans against PyTorch, on the GPU that will serve them."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cosmos_export.parity import Agreement
from cosmos_triton.errors import ConfigurationError, CosmosError
from cosmos_triton.pipeline import NETWORKS
from cosmos_triton.runtimes.plans import Host, PlanRecord, find_problem, plan_path, record_path


@dataclass(frozen=True)
class Verified:
    """One plan's distance from PyTorch.

    Args:
        network: its name.
        precision: of the plan.
        agreement: of the plan with PyTorch in float32, judged by the tolerance of its precision.
        rounding: the same measure for PyTorch in the plan's precision: what is due to rounding alone.
    """

    network: str
    precision: str
    agreement: Agreement
    rounding: Agreement


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 all plans agree, 1 one does not or could not be compared, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    results, failures = [], 0
    for network in options.network or NETWORKS:
        try:
            result = verify(network, options.checkpoint, options.repository)
        except CosmosError as error:
            failures += 1
            print(f"{network:<18} failed: {error}", file=sys.stderr)
            continue
        results.append(asdict(result))
        failures += not result.agreement.holds
        verdict = "agrees" if result.agreement.holds else "DISAGREES"
        print(
            f"{network:<18} {result.precision:<9} {verdict:<9} {result.agreement}; "
            f"PyTorch in the same precision: {result.rounding.error:.2g}",
            flush=True,
        )
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {options.output}")
    return 1 if failures else 0


def verify(network: str, checkpoint: Path, repository: Path) -> Verified:
    """Run one plan and the module it was made from on the same inputs.

    Raises:
        ConfigurationError: the plan does not fit this machine or checkpoint, or there is no GPU.
    """
    import torch

    from cosmos_export.graphs import GRAPHS
    from cosmos_export.parity import compare
    from cosmos_triton.checkpoints.folder import CheckpointFolder
    from cosmos_triton.runtimes.pytorch import PyTorchRuntime
    from cosmos_triton.runtimes.tensorrt import TensorRTRuntime

    plan = plan_path(repository, network)
    problem = find_problem(plan, checkpoint, Host.detect())
    if problem:
        raise ConfigurationError(problem)
    record = PlanRecord.read(record_path(plan))
    graph, folder = GRAPHS[network], CheckpointFolder(checkpoint)
    tolerance = graph.plan_tolerance
    inputs = graph.example_inputs_of(record.shapes)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    output = graph.output.name

    def by_pytorch(dtype: torch.dtype) -> NDArray[Any]:
        runtime = PyTorchRuntime(graph.load(folder, dtype), tuple(inputs), output, "cuda")
        result = runtime(arrays)[output]
        del runtime  # a network of gigabytes, before the next one
        torch.cuda.empty_cache()
        return result

    exact = by_pytorch(torch.float32)
    rounded = by_pytorch(graph.precision)
    actual = TensorRTRuntime(plan)(arrays)[output]
    return Verified(
        network, record.precision, compare(actual, exact, tolerance), compare(rounded, exact, tolerance)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cosmos_export verify", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, metavar="NAME")
    parser.add_argument(
        "--output", type=Path, default=Path("parity.json"), help="of the table as JSON (default %(default)s)"
    )
    return parser
