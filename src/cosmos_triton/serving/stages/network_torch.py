"""A network stage in PyTorch, on the GPU. Apart from `network`, so that profile cpu loads no PyTorch."""

import logging
import time

import torch

from cosmos_triton.checkpoints import catalog
from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.runtimes.pytorch import PyTorchRuntime
from cosmos_triton.runtimes.stage_modules import STAGE_MODULES
from cosmos_triton.serving.parameters import NetworkParameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages.network import Network

_log = logging.getLogger(__name__)


def load_network(settings: StageSettings[NetworkParameters]) -> Network:
    """The module with the checkpoint's weights; has run once when it is returned.

    What only stages on the host read comes as arrays: Triton's pool for tensors on the GPU holds 64 MB, one
    video's frames need 65, and its Python backend then hands on memory that nobody has written.
    """
    if settings.device != "cpu":
        torch.cuda.set_device(settings.device)
    folder = CheckpointFolder(settings.checkpoint_dir)
    stage = STAGE_MODULES[settings.model]
    precision = torch.float32 if settings.device == "cpu" else stage.precision
    torch.backends.cudnn.allow_tf32 = False  # where float32 is asked for, it is meant
    module = stage.load(folder, precision)
    runtime = PyTorchRuntime(
        module, stage.inputs, stage.output, settings.device, residency(settings), stage.blocks(module)
    )
    example = dict(zip(stage.inputs, stage.example(folder, catalog.geometry(folder)), strict=True))
    began = time.monotonic()
    runtime.run(example)
    _log.info("warmed up in %.1f s", time.monotonic() - began)
    return Network(
        run=runtime.run if stage.read_on_gpu else runtime,
        shapes={name: tuple(value.shape) for name, value in example.items()},
        vocabularies=_vocabularies(settings.model, folder),
    )


def _vocabularies(model: str, folder: CheckpointFolder) -> dict[str, int]:
    match model:
        case "video_decoder":
            return {"tokens": folder.discrete_tokenizer().architecture.codebook_size}
        case "diffusion_denoiser":
            return {"tokens": folder.diffusion_decoder().architecture.vocabulary}
        case "text_encoder":
            return {"input_ids": folder.text_encoder().architecture.vocabulary, "attention_mask": 2}
        case _:
            return {}
