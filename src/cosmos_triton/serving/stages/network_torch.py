"""A network stage in PyTorch, on the GPU. Apart from `network`, so that profile cpu loads no PyTorch."""

import logging
import time
from typing import Any

import torch

from cosmos_triton.architectures import TokenizerArchitecture
from cosmos_triton.checkpoints import CheckpointFolder, catalog
from cosmos_triton.pipeline import NETWORKS, Network
from cosmos_triton.runtimes import DTYPES, PyTorchRuntime, blocks_of, example_inputs, load_module
from cosmos_triton.serving.parameters import NetworkParameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages.network import RunningNetwork

_log = logging.getLogger(__name__)


def load_network(settings: StageSettings[NetworkParameters]) -> RunningNetwork:
    """The module with the checkpoint's weights; has run once when it is returned.

    What only stages on the host read comes as arrays: Triton's pool for tensors on the GPU holds 64 MB, one
    video's frames need 65, and its Python backend then hands on memory that nobody has written.
    """
    if settings.device != "cpu":
        torch.cuda.set_device(settings.device)
    folder = CheckpointFolder(settings.checkpoint_dir)
    network = NETWORKS[settings.model]
    precision = torch.float32 if settings.device == "cpu" else DTYPES[network.precision]
    torch.backends.cudnn.allow_tf32 = False  # where float32 is asked for, it is meant
    module = load_module(network, folder, precision)
    architecture = folder.component(network.component).architecture
    inputs = example_inputs(network, network.sizes(catalog.geometry(folder), architecture))
    runtime = PyTorchRuntime(
        module,
        tuple(inputs),
        network.output.name,
        settings.device,
        residency(settings),
        blocks_of(network, module),
    )
    began = time.monotonic()
    runtime.run(inputs)
    _log.info("warmed up in %.1f s", time.monotonic() - began)
    return RunningNetwork(
        run=runtime.run if network.read_on_gpu else runtime,
        shapes={name: tuple(value.shape) for name, value in inputs.items()},
        vocabularies=_vocabularies(network, architecture),
    )


def _vocabularies(network: Network, architecture: Any) -> dict[str, int]:
    """For each input of ids or flags, how many values it may have."""
    ids = architecture.codebook_size if isinstance(architecture, TokenizerArchitecture) else None
    counts = {"token ids": ids, "text ids": None, "text mask": 2}
    return {
        tensor.name: counts[tensor.values] or architecture.vocabulary
        for tensor in network.inputs
        if tensor.values in counts
    }
