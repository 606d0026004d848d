"""Plans against PyTorch, on the GPU that will serve them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cosmos_export.parity import Agreement, compare
from cosmos_triton.checkpoints import CheckpointFolder
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.pipeline import NETWORKS
from cosmos_triton.runtimes import (
    DTYPES,
    Host,
    PlanRecord,
    PyTorchRuntime,
    TensorRTRuntime,
    find_problem,
    inputs_of_shapes,
    load_module,
    plan_path,
    record_path,
)


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


def verify(name: str, checkpoint_dir: Path, model_repository: Path) -> Verified:
    """Run one plan and the module it was made from on the same inputs.

    Raises:
        ConfigurationError: the plan does not fit this machine or checkpoint, or there is no GPU.
    """
    plan = plan_path(model_repository, name)
    problem = find_problem(plan, checkpoint_dir, Host.detect())
    if problem:
        raise ConfigurationError(problem)
    record = PlanRecord.read(record_path(plan))
    network, folder = NETWORKS[name], CheckpointFolder(checkpoint_dir)
    tolerance, output = network.plan_tolerance, network.output.name
    inputs = inputs_of_shapes(network, record.shapes)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}

    def by_pytorch(dtype: torch.dtype) -> NDArray[Any]:
        runtime = PyTorchRuntime(load_module(network, folder, dtype), tuple(inputs), output, "cuda")
        result = runtime(arrays)[output]
        del runtime  # a network of gigabytes, before the next one
        torch.cuda.empty_cache()
        return result

    exact = by_pytorch(torch.float32)
    rounded = by_pytorch(DTYPES[network.precision])
    actual = TensorRTRuntime(plan)(arrays)[output]
    return Verified(
        name, record.precision, compare(actual, exact, tolerance), compare(rounded, exact, tolerance)
    )
