"""From a checkpoint's tensors to an engine: number type, operations, and where the weights are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive import plain
from cosmos_triton.autoregressive.device_memory import OffloadedMemory, ResidentMemory
from cosmos_triton.autoregressive.engine import Engine, EngineObserver
from cosmos_triton.autoregressive.operations import Operations
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer, build
from cosmos_triton.checkpoints import Component
from cosmos_triton.residency import Residency


def load_engine(
    component: Component[AutoregressiveArchitecture],
    device: torch.device,
    residency: Residency,
    settings: EngineSettings | None = None,
    observer: EngineObserver | None = None,
) -> Engine:
    """An engine for a published network, not started yet.

    Args:
        device: where it runs; becomes the calling thread's current device.
        residency: whether weights and cache stay on the device while there is no video.

    Raises:
        CheckpointError: the tensors do not fit the architecture.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    network = load_transformer(component.architecture, component.tensors, device, residency)
    offloaded = residency is Residency.OFFLOAD
    memory = OffloadedMemory(network, device) if offloaded else ResidentMemory(device)
    return Engine(network, settings, observer, memory)


def load_transformer(
    architecture: AutoregressiveArchitecture,
    tensors: Mapping[str, Tensor],
    device: torch.device,
    residency: Residency = Residency.RESIDENT,
) -> AutoregressiveTransformer:
    """A network that is to run on `device`: there already, or, offloaded, in host memory.

    See `build` for the tensors and what it raises.
    """
    return build(
        architecture,
        tensors,
        dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
        device="cpu" if residency is Residency.OFFLOAD else device,
        operations=_operations(device),
    )


def _operations(device: torch.device) -> Operations:
    """`fused` on a CUDA device, else `plain`."""
    if device.type != "cuda":
        return plain
    from cosmos_triton.autoregressive import fused  # needs Triton's compiler, which CPU builds lack

    return fused
