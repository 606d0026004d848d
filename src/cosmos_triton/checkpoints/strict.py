"""Strict loading: every tensor has its place, every place gets its tensor."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cosmos_triton.checkpoints.files import release
from cosmos_triton.errors import CheckpointError

Shape = tuple[int, ...]


def assign_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Puts `tensors` into `module`, which may live on the meta device.

    Names are those of `module.state_dict()`; of parameters that the module ties, any one name suffices.
    Tensors are taken one at a time: as they are (so that a memory-mapped file is not copied) or cast to
    `dtype` (floating point only) and moved to `device`. Buffers that the module does not save are left
    alone: the module computes them itself. Parameters end up without gradients.

    Args:
        what: names the file or component in the error, e.g. `checkpoints/x/model.pt`.

    Raises:
        CheckpointError: names are missing, unexpected or wrongly shaped; all are listed.
    """
    expected: dict[str, Tensor] = module.state_dict(keep_vars=True)
    places: dict[int, list[str]] = {}  # names by the identity of what they name
    for name, target in expected.items():
        places.setdefault(id(target), []).append(name)
    sources = [[name for name in names if name in tensors] or names[:1] for names in places.values()]
    problems = describe_differences(
        {name: tuple(expected[name].shape) for names in sources for name in names},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    if problems:
        raise CheckpointError(f"{what} does not fit the network: {problems}")
    for names, (source, *_) in zip(places.values(), sources, strict=True):
        target = expected[names[0]]
        value = placed(tensors[source], dtype if target.is_floating_point() else None, device)
        if value.data_ptr() != tensors[source].data_ptr():
            release([tensors[source]])  # a whole file of pages beside the copies would double the memory
        if isinstance(target, nn.Parameter):
            value = nn.Parameter(value, requires_grad=False)
        for name in names:
            _put(module, name, value)


def describe_differences(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> str:
    """Every missing, unexpected and wrongly shaped name in one sentence; empty when all fits."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    reshaped = [
        f"{name} {list(found[name])} instead of {list(expected[name])}"
        for name in expected
        if name in found and tuple(found[name]) != tuple(expected[name])
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", reshaped))
    return "; ".join(f"{len(names)} {title}: {', '.join(names)}" for title, names in parts if names)


def placed(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    """The tensor on the device, cast if it is floating point, aligned; itself where that is so already."""
    value = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    if value.data_ptr() % value.element_size():  # old files do not align their tensors; kernels want it
        value = value.clone()
    return value


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if isinstance(value, nn.Parameter):
        owner._parameters[leaf] = value
    else:
        owner._buffers[leaf] = value
