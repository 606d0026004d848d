"""From trained parameters to files in the published layout, and back.

Training keeps a network's result as one file of bf16 tensors under the names of the project's modules;
a checkpoint folder has published names, fused matrices taken apart, and NVIDIA's directories.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cosmos_triton.architectures import (
    TEXT_ROWS,
    AutoregressiveArchitecture,
    DiffusionDecoderArchitecture,
    TextEncoderArchitecture,
    TokenizerArchitecture,
)
from cosmos_triton.checkpoints import (
    AUX_VARS,
    MEAN_STD,
    MEAN_STD_FRAMES,
    PREDICT1,
    WEIGHTS,
    Component,
    Shapes,
    published,
)
from cosmos_triton.demo import write_torchscript
from cosmos_triton.diffusion import RENAMES as DIFFUSION_RENAMES
from cosmos_triton.networks import rename, text_encoder, video_autoencoder
from small_world.autoencoder import TrainableTokenizer

Tensors = Mapping[str, Tensor]


def write_tokenizer(architecture: TokenizerArchitecture, result: Tensors, folder: Path) -> Path:
    """`encoder.jit`, `decoder.jit`, and for the continuous tokenizer `mean_std.pt`.

    Args:
        result: parameters of a folded `TrainableTokenizer`; for the continuous one also `mean` and `std`,
            [C, t] each.
    """
    discrete = architecture.fsq_levels is not None
    place = PREDICT1.discrete_tokenizer if discrete else PREDICT1.continuous_tokenizer
    directory = _directory(folder, place, architecture.name)
    renames = video_autoencoder.renames(architecture)
    halves: dict[str, Shapes] = {
        "encoder": published.tokenizer_encoder_shapes(architecture),
        "decoder": published.tokenizer_decoder_shapes(architecture),
    }
    for half, shapes in halves.items():
        tensors = {name: result[f"{half}.{rename(name, renames)}"] for name in shapes}
        write_torchscript(directory / f"{half}.jit", tensors, {})
    if not discrete:
        statistics = tuple(_all_frames(result[name]) for name in ("mean", "std"))
        torch.save(statistics, directory / MEAN_STD)
    return directory


def write_autoregressive(architecture: AutoregressiveArchitecture, result: Tensors, folder: Path) -> Path:
    """`model.pt` with `model.` before the names, as published.

    Args:
        result: parameters of an `AutoregressiveTransformer`.
    """
    directory = _directory(folder, PREDICT1.autoregressive_directory(architecture.name), architecture.name)
    split = split_matrices(architecture, result)
    tensors = {f"{published.PREFIX}{n}": split[n] for n in published.autoregressive_shapes(architecture)}
    torch.save(tensors, directory / WEIGHTS)
    return directory


def write_diffusion_decoder(
    architecture: DiffusionDecoderArchitecture, result: Tensors, context: Tensor, folder: Path
) -> Path:
    """`model.pt` and `aux_vars.pt`.

    Args:
        result: parameters of a `DiffusionTransformer`.
        context: [rows, text_dim], the text context for models without a prompt.
    """
    directory = _directory(folder, PREDICT1.diffusion_decoder, architecture.name)
    shapes = published.diffusion_decoder_shapes(architecture)
    torch.save({n: result[rename(n, DIFFUSION_RENAMES)] for n in shapes}, directory / WEIGHTS)
    rows = torch.zeros(1, TEXT_ROWS, architecture.text_dim, dtype=torch.bfloat16)
    rows[0, : len(context)] = context
    mask = (torch.arange(TEXT_ROWS) < len(context)).float()[None]
    torch.save({"context": rows, "context_mask": mask}, directory / AUX_VARS)
    return directory


def write_text_encoder(architecture: TextEncoderArchitecture, result: Tensors, folder: Path) -> Path:
    """`pytorch_model.bin`; the tokenizer's files come from `write_text_tokenizer`.

    Args:
        result: parameters of a `TextEncoder`.
    """
    directory = _directory(folder, PREDICT1.text_encoder, architecture.name)
    shapes = published.text_encoder_shapes(architecture)
    tensors = {n: result[rename(n, text_encoder.RENAMES)] for n in shapes}
    torch.save(tensors, directory / "pytorch_model.bin")
    return directory


def _directory(folder: Path, place: str, name: str) -> Path:
    directory = folder / place
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"architecture": name}, indent=2) + "\n")
    return directory


def split_matrices(architecture: AutoregressiveArchitecture, result: Tensors) -> dict[str, Tensor]:
    """Published names and matrices: queries, keys and values apart, and both halves of the gate."""
    a = architecture
    queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    parts = {
        "wqkv": (("wq", queries), ("wk", keys), ("wv", keys)),
        "wkv": (("wk", keys), ("wv", keys)),
        "w13": (("w1", a.ffn_dim), ("w3", a.ffn_dim)),
    }
    split: dict[str, Tensor] = {}
    for name, tensor in result.items():
        path, dot, leaf = name.rpartition(".")
        leaf = {"embedding": "tok_embeddings"}.get(leaf, leaf)
        pieces = parts.get(leaf, ((leaf, len(tensor)),))
        rows = tensor.split([size for _, size in pieces])
        for (piece, _), matrix in zip(pieces, rows, strict=True):
            split[f"{path}{dot}{piece}.weight"] = matrix.clone()
    return split


def _all_frames(statistics: Tensor) -> Tensor:
    """[C, t] → [C F], flat, the last latent frame standing for all later ones."""
    frames = [statistics, statistics[:, -1:].expand(-1, MEAN_STD_FRAMES - statistics.shape[1])]
    return torch.cat(frames, dim=1).to(torch.bfloat16).flatten()


def read_tokenizer(component: Component[TokenizerArchitecture]) -> TrainableTokenizer:
    """A published tokenizer, ready to be trained further or to make tokens and latents."""
    architecture = component.architecture
    renames = video_autoencoder.renames(architecture)
    encoder = set(published.tokenizer_encoder_shapes(architecture))
    state = {
        f"{'encoder' if name in encoder else 'decoder'}.{rename(name, renames)}": tensor.float()
        for name, tensor in component.tensors.items()
    }
    network = TrainableTokenizer(architecture)
    buffers = {name: value for name, value in network.state_dict().items() if name in ("bands", "scale")}
    network.load_state_dict(state | buffers)
    return network
