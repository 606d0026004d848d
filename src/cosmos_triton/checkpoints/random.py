"""A complete checkpoint folder in the published layout with seeded random weights.

For demos, tests and benchmarks. Weights are scaled so that signals neither vanish nor explode on their
way through the networks; a tensor depends on the seed, its directory and its name only. Everything is
streamed to disk: one tensor is in memory at a time (the tokenizers' archives, 0.2 GB, are written whole).
"""

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
    AutoregressiveArchitecture,
    DiffusionDecoderArchitecture,
    TextEncoderArchitecture,
    TokenizerArchitecture,
)
from cosmos_triton.checkpoints import published
from cosmos_triton.checkpoints.published import Shape
from cosmos_triton.checkpoints.releases import ARCHIVES, AUX_VARS, MEAN_STD, PREDICT1, WEIGHTS
from cosmos_triton.checkpoints.text_tokenizer import write_text_tokenizer
from cosmos_triton.checkpoints.torch_zip import write_state_dict

_log = logging.getLogger(__name__)

_CONTEXT_ROWS = 12  # rows of the stored text context that a prompt of its length fills
_HAAR_BANDS = 8  # of one Haar step over time, height and width
_CELL_MEAN, _CELL_DETAIL, _PIXEL_DETAIL = 0.75, 0.15, 0.03  # gains; without them pixels spread over ±15
_SEED_BYTES = 7  # of a digest; PyTorch's seeds are below 2**63


@dataclass(frozen=True)
class Size:
    """The networks that one `--size` writes, as preset names."""

    autoregressive: tuple[str, ...]
    tokenizer_prefix: str
    diffusion_decoder: str
    text_encoder: str

    @property
    def needs_text(self) -> bool:
        """Whether one of the models takes a prompt."""
        return any(AUTOREGRESSIVE[name].is_video2world for name in self.autoregressive)


SIZES = {
    "tiny": Size(("tiny", "tiny-video2world"), "tiny-", "tiny", "tiny"),
    **{name: Size((name,), "", "7B", "t5-11b") for name in ("4B", "5B", "12B", "13B")},
}


def init_random(size: str, directory: Path, seed: int = 0) -> None:
    """Writes every component of `size` (a key of SIZES) below `directory`, over what is there."""
    parts = SIZES[size]
    prefix = parts.tokenizer_prefix
    for model in parts.autoregressive:
        architecture = AUTOREGRESSIVE[model]
        place = directory / PREDICT1.autoregressive_directory(model)
        write_autoregressive(architecture, place, seed)
    discrete = DISCRETE_TOKENIZERS[f"{prefix}DV8x16x16"]
    continuous = CONTINUOUS_TOKENIZERS[f"{prefix}CV8x8x8"]
    write_tokenizer(discrete, directory / PREDICT1.discrete_tokenizer, seed)
    write_tokenizer(continuous, directory / PREDICT1.continuous_tokenizer, seed)
    decoder = DIFFUSION_DECODERS[parts.diffusion_decoder]
    write_diffusion_decoder(decoder, directory / PREDICT1.diffusion_decoder, seed)
    if parts.needs_text:
        text = TEXT_ENCODERS[parts.text_encoder]
        write_text_encoder(text, directory / PREDICT1.text_encoder, seed, whole=size == "tiny")


def write_autoregressive(arch: AutoregressiveArchitecture, directory: Path, seed: int) -> None:
    """`model.pt` in bf16 under `model.`-prefixed names, and `config.json`."""
    config = {
        "dim": arch.dim,
        "n_layers": arch.layers,
        "n_heads": arch.heads,
        "n_kv_heads": arch.kv_heads,
        "head_dim": arch.head_dim,
        "ffn_hidden_size": arch.ffn_dim,
        "vocab_size": arch.vocabulary,
        "video_latent_shape": list(arch.latent_shape),
    }
    _start(directory, config)
    shapes = {f"{published.PREFIX}{k}": v for k, v in published.autoregressive_shapes(arch).items()}
    write_state_dict(
        directory / WEIGHTS, shapes, torch.bfloat16, _maker(seed, directory, _autoregressive_spread)
    )


def write_tokenizer(arch: TokenizerArchitecture, directory: Path, seed: int) -> None:
    """The three TorchScript archives, in bf16; for the continuous tokenizer `mean_std.pt` too.

    The archives hold the published tensors and a graph that refuses to run.
    """
    _start(directory, {"architecture": arch.name})
    make = _calm(_maker(seed, directory, _tokenizer_spread))
    encoder, decoder = published.tokenizer_encoder_shapes(arch), published.tokenizer_decoder_shapes(arch)
    for archive, shapes in zip(ARCHIVES, (encoder, decoder, encoder | decoder), strict=True):
        tensors = {name: make(name, shape).to(torch.bfloat16) for name, shape in shapes.items()}
        buffers = published.tokenizer_buffers(arch, archive.removesuffix(".jit"))
        _write_torchscript(directory / archive, tensors, {k: torch.zeros(v) for k, v in buffers.items()})
    if arch.fsq_levels is None:
        channels = arch.latent_channels * published.MEAN_STD_FRAMES  # [C F], flat
        pair = (torch.zeros(channels), torch.ones(channels))
        torch.save(tuple(value.to(torch.bfloat16) for value in pair), directory / MEAN_STD)


def write_diffusion_decoder(arch: DiffusionDecoderArchitecture, directory: Path, seed: int) -> None:
    """`model.pt` in bf16 and `aux_vars.pt`, the text context for models without a prompt."""
    _start(directory, {"architecture": arch.name})
    shapes = published.diffusion_decoder_shapes(arch) | published.diffusion_decoder_buffers(arch)
    make = _maker(seed, directory, _diffusion_spread)
    write_state_dict(directory / WEIGHTS, shapes, torch.bfloat16, make)
    context = torch.zeros(1, published.CONTEXT_TOKENS, arch.text_dim)
    context[:, :_CONTEXT_ROWS] = make("context", (1, _CONTEXT_ROWS, arch.text_dim))
    mask = torch.zeros(1, published.CONTEXT_TOKENS)
    mask[:, :_CONTEXT_ROWS] = 1
    torch.save({"context": context.to(torch.bfloat16), "context_mask": mask}, directory / AUX_VARS)


def write_text_encoder(arch: TextEncoderArchitecture, directory: Path, seed: int, whole: bool) -> None:
    """T5's `config.json`, tokenizer and `pytorch_model.bin`.

    Args:
        whole: write both halves of T5 in fp32, as published; otherwise the encoder alone in bf16, a fifth
            of the size.
    """
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": arch.vocabulary,
        "d_model": arch.dim,
        "d_kv": arch.head_dim,
        "d_ff": arch.ffn_dim,
        "num_layers": arch.layers,
        "num_heads": arch.heads,
        "relative_attention_num_buckets": arch.relative_buckets,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "n_positions": arch.max_tokens,
    }
    _start(directory, config)
    write_text_tokenizer(directory, arch.max_tokens)
    shapes = published.text_encoder_shapes(arch)
    dtype = torch.bfloat16
    if whole:
        copies = {f"{half}.embed_tokens.weight": shapes["shared.weight"] for half in ("encoder", "decoder")}
        shapes |= copies | published.text_decoder_shapes(arch)
        dtype = torch.float32
    make = _maker(seed, directory, _text_spread)
    write_state_dict(
        directory / "pytorch_model.bin",
        shapes,
        dtype,
        lambda name, shape: make("shared.weight" if "embed_tokens" in name else name, shape),
    )


def _start(directory: Path, config: Mapping[str, object]) -> None:
    _log.info("writing %s", directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


Spread = Callable[[str, Shape], tuple[float, float]]  # a tensor's mean and standard deviation
Make = Callable[[str, Shape], Tensor]


def _maker(seed: int, directory: Path, spread: Spread) -> Make:
    def make(name: str, shape: Shape) -> Tensor:
        digest = hashlib.sha256(f"{seed} {directory.name} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:_SEED_BYTES]))
        mean, deviation = spread(name, shape)
        return torch.empty(shape, dtype=torch.bfloat16).normal_(mean, deviation, generator=generator)

    return make


def _calm(make: Make) -> Make:
    """Scales the decoder's last map, whose rows are Haar bands, so that pixels form patches of colour.

    Two Haar steps make 8 bands of 8 bands of RGB. The first band of both is the mean of a 4x4x4 cell; the
    first of the inner step only is detail of 2x2x2 cells; all others are noise of single pixels.
    """
    bands = torch.full((_HAAR_BANDS, _HAAR_BANDS, published.PIXEL_CHANNELS), _PIXEL_DETAIL)
    bands[:, 0] = _CELL_DETAIL
    bands[0, 0] = _CELL_MEAN

    def calm(name: str, shape: Shape) -> Tensor:
        value = make(name, shape)
        if name.startswith("decoder.conv_out.1.") and shape[0] == bands.numel():
            value *= bands.reshape(-1, *[1] * (len(shape) - 1))  # [outer inner C] over rows
        return value

    return calm


def _fan_in(shape: Shape) -> float:
    """Deviation with which a linear map or convolution keeps its input's variance."""
    return 1 / math.sqrt(math.prod(shape[1:]))


def _autoregressive_spread(name: str, shape: Shape) -> tuple[float, float]:
    if len(shape) == 1:
        return 1.0, 0.0
    if name.endswith("tok_embeddings.weight"):
        return 0.0, 1.0
    if name.endswith("output.weight"):
        return 0.0, 3 * _fan_in(shape)  # logits of deviation 3: some tokens are likely, most are not
    return 0.0, _fan_in(shape)


def _tokenizer_spread(name: str, shape: Shape) -> tuple[float, float]:
    if len(shape) == 1:
        return (0.0, 0.02) if name.endswith("bias") else (1.0, 0.0)
    if name == "quant_conv.conv3d.weight":
        return 0.0, 1.6 * _fan_in(shape)  # so that a picture's tokens spread over the codebook
    return 0.0, _fan_in(shape)


def _diffusion_spread(name: str, shape: Shape) -> tuple[float, float]:
    if len(shape) == 1:
        return 1.0, 0.0
    if name in ("net.token_embedder.weight", "context"):
        return 0.0, 1.0
    if "adaLN_modulation.2" in name:
        return 0.0, 0.3 * _fan_in(shape)
    if name == "net.final_layer.linear.weight":
        return 0.0, 0.35 * _fan_in(shape)  # guidance amplifies it; sampled latents come out near deviation 1
    return 0.0, _fan_in(shape)


def _text_spread(name: str, shape: Shape) -> tuple[float, float]:
    if len(shape) == 1:
        return 1.0, 0.0
    if name.endswith("shared.weight"):
        return 0.0, 1.0
    if name.endswith(".q.weight"):
        return 0.0, _fan_in(shape) * (shape[1] / shape[0]) ** 0.5  # T5 does not scale its scores
    return 0.0, _fan_in(shape)


class _WeightsOnly(nn.Module):
    """A module that holds weights under a file's names; its graph refuses to run."""

    def forward(self, video: Tensor) -> Tensor:
        raise RuntimeError("this archive holds random weights and no network")


def _write_torchscript(path: Path, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    root = _WeightsOnly()
    for name, tensor in parameters.items():
        owner, leaf = _owner(root, name)
        owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    for name, tensor in buffers.items():
        owner, leaf = _owner(root, name)
        owner.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        # The published files are TorchScript, whatever newer formats PyTorch recommends.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(root).save(str(path))  # type: ignore[no-untyped-call]


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    *path, leaf = name.split(".")
    for step in path:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    return root, leaf
