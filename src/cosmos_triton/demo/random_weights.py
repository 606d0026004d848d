"""A complete checkpoint folder in the published layout with seeded random weights.

For demos, tests and benchmarks. Weights are scaled so that signals neither vanish nor explode on their
way through the networks; a tensor depends on the seed, its directory and its name only. Large directories
are written side by side, and streamed to disk: of each, one tensor is in memory at a time (the tokenizers'
archives, 0.2 GB, are written whole).
"""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
    TEXT_ROWS,
    AutoregressiveArchitecture,
    DiffusionDecoderArchitecture,
    TextEncoderArchitecture,
    TokenizerArchitecture,
)
from cosmos_triton.checkpoints import (
    ARCHIVES,
    AUX_VARS,
    COMPONENTS,
    MEAN_STD,
    MODELS,
    PREDICT1,
    WEIGHTS,
    Shape,
    Shapes,
    parameters,
    published,
)
from cosmos_triton.demo.tokenizer_trainer import write_text_tokenizer
from cosmos_triton.demo.torch_zip import write_state_dict
from cosmos_triton.errors import CheckpointError
from cosmos_triton.sentences import telling

_PROMPT_ROWS = 12  # rows of the stored text embeddings that a prompt of its length fills
_HAAR_BANDS = 8  # of one Haar step over time, height and width
_CELL_MEAN, _CELL_DETAIL, _PIXEL_DETAIL = 0.75, 0.15, 0.03  # gains; without them pixels spread over ±15
_SEED_BYTES = 7  # of a digest; PyTorch's seeds are below 2**63
# PyTorch draws 0.1 billion normal numbers a second, on one core. Tensors of at least _LARGE numbers are cut
# from one block of them that repeats without end. Its length is a prime, so that no two rows of a matrix
# begin at the same place.
_LARGE = 1 << 22
_BLOCK = 15_485_863


@dataclass(frozen=True)
class Size:
    """The networks that one `--size` writes, as preset names."""

    autoregressive: tuple[str, ...]
    tokenizer_prefix: str
    diffusion_decoder: str
    text_encoder: str
    whole_text: bool = False  # both halves of T5, in fp32

    @property
    def needs_text(self) -> bool:
        """Whether one of the models takes a prompt."""
        return any(AUTOREGRESSIVE[name].is_video2world for name in self.autoregressive)


SIZES = {
    "tiny": Size(("tiny", "tiny-video2world"), "tiny-", "tiny", "tiny", whole_text=True),
    **{name: Size((name,), "", "7B", "t5-11b") for name in MODELS},
}


def init_random(
    size: str,
    directory: Path,
    seed: int = 0,
    only: Sequence[str] = COMPONENTS,
    on_directory: Callable[[Path, int], None] = lambda path, size: None,
) -> None:
    """Writes the components `only` of `size` (a key of SIZES) below `directory`, over what is there.

    Args:
        on_directory: called for each directory with the bytes that its weights will take.

    Raises:
        CheckpointError: the disk has no room, or a file cannot be written.
    """
    parts = list(_parts(SIZES[size], only))
    needed = sum(part.size for part in parts)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise CheckpointError(
                f"{needed / 1e9:.1f} GB are to be written but {directory} has {free / 1e9:.1f} GB free"
            )
        with ThreadPoolExecutor() as pool:
            writing = []
            for part in parts:
                place = directory / part.directory
                on_directory(place, part.size)
                place.mkdir(parents=True, exist_ok=True)
                if part.streamed:
                    writing.append(pool.submit(part.write, place, seed))
                else:
                    part.write(place, seed)
            for written in writing:
                written.result()
    except OSError as error:
        place = error.filename or directory
        raise CheckpointError(f"{place} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Part:
    directory: str
    size: int  # bytes of its weights
    write: Callable[[Path, int], None]  # directory, seed
    streamed: bool = True  # by a thread of its own; TorchScript numbers its classes in the order of writing


def _parts(size: Size, only: Sequence[str]) -> Iterator[_Part]:
    prefix = size.tokenizer_prefix
    if "autoregressive" in only:
        for model in size.autoregressive:
            transformer = AUTOREGRESSIVE[model]
            count = parameters(published.autoregressive_shapes(transformer).values())
            place = PREDICT1.autoregressive_directory(model)
            yield _Part(place, 2 * count, partial(write_autoregressive, transformer))
    if "diffusion-decoder" in only:
        decoder = DIFFUSION_DECODERS[size.diffusion_decoder]
        count = parameters(published.diffusion_decoder_shapes(decoder).values())
        yield _Part(PREDICT1.diffusion_decoder, 2 * count, partial(write_diffusion_decoder, decoder))
    if "text-encoder" in only and size.needs_text:
        text = TEXT_ENCODERS[size.text_encoder]
        shapes, dtype = _text_tensors(text, whole=size.whole_text)
        count = parameters(shapes.values()) * dtype.itemsize
        yield _Part(PREDICT1.text_encoder, count, partial(write_text_encoder, text, whole=size.whole_text))
    if "tokenizers" in only:
        for tokenizer, place in (
            (DISCRETE_TOKENIZERS[f"{prefix}DV8x16x16"], PREDICT1.discrete_tokenizer),
            (CONTINUOUS_TOKENIZERS[f"{prefix}CV8x8x8"], PREDICT1.continuous_tokenizer),
        ):
            count = parameters(published.tokenizer_shapes(tokenizer).values())
            codebook = 4 * 3 * tokenizer.codebook_size * len(tokenizer.fsq_levels or ())
            yield _Part(place, 2 * 2 * count + codebook, partial(write_tokenizer, tokenizer), streamed=False)


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
    _write_json(directory / "config.json", config)
    shapes = {f"{published.PREFIX}{k}": v for k, v in published.autoregressive_shapes(arch).items()}
    make = _maker(seed, directory, _autoregressive_spread)
    with whole_file(directory / WEIGHTS) as path:
        write_state_dict(path, shapes, torch.bfloat16, make)


def write_tokenizer(arch: TokenizerArchitecture, directory: Path, seed: int) -> None:
    """The three TorchScript archives, in bf16; for the continuous tokenizer `mean_std.pt` too.

    The archives hold the published tensors and a graph that refuses to run.
    """
    _write_json(directory / "config.json", {"architecture": arch.name})
    make = _calm(_maker(seed, directory, _tokenizer_spread))
    encoder, decoder = published.tokenizer_encoder_shapes(arch), published.tokenizer_decoder_shapes(arch)
    for archive, shapes in zip(ARCHIVES, (encoder, decoder, encoder | decoder), strict=True):
        tensors = {name: make(name, shape) for name, shape in shapes.items()}
        buffers = published.tokenizer_buffers(arch, archive.removesuffix(".jit"))
        with whole_file(directory / archive) as path:
            write_torchscript(path, tensors, {name: torch.zeros(shape) for name, shape in buffers.items()})
    if arch.fsq_levels is None:
        count = arch.latent_channels * published.MEAN_STD_FRAMES  # [C F], flat
        pair = torch.zeros(count, dtype=torch.bfloat16), torch.ones(count, dtype=torch.bfloat16)
        with whole_file(directory / MEAN_STD) as path:
            torch.save(pair, path)


def write_diffusion_decoder(arch: DiffusionDecoderArchitecture, directory: Path, seed: int) -> None:
    """`model.pt` in bf16 and `aux_vars.pt`, the text embeddings for models without a prompt."""
    _write_json(directory / "config.json", {"architecture": arch.name})
    shapes = published.diffusion_decoder_shapes(arch) | published.diffusion_decoder_buffers(arch)
    make = _maker(seed, directory, _diffusion_spread)
    with whole_file(directory / WEIGHTS) as path:
        write_state_dict(path, shapes, torch.bfloat16, make)
    rows = (1, TEXT_ROWS)
    text = torch.zeros(*rows, arch.text_dim, dtype=torch.bfloat16)
    text[:, :_PROMPT_ROWS] = make("context", (1, _PROMPT_ROWS, arch.text_dim))
    mask = torch.zeros(rows)
    mask[:, :_PROMPT_ROWS] = 1
    with whole_file(directory / AUX_VARS) as path:
        torch.save({"context": text, "context_mask": mask}, path)


def write_text_encoder(arch: TextEncoderArchitecture, directory: Path, seed: int, *, whole: bool) -> None:
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
    _write_json(directory / "config.json", config)
    write_text_tokenizer(directory, arch.max_tokens)
    shapes, dtype = _text_tensors(arch, whole)
    make = _maker(seed, directory, _text_spread)
    with whole_file(directory / "pytorch_model.bin") as path:
        write_state_dict(
            path,
            shapes,
            dtype,
            lambda name, shape: make("shared.weight" if "embed_tokens" in name else name, shape),
        )


def _text_tensors(arch: TextEncoderArchitecture, whole: bool) -> tuple[Shapes, torch.dtype]:
    shapes = published.text_encoder_shapes(arch)
    if not whole:
        return shapes, torch.bfloat16
    copies = {f"{half}.embed_tokens.weight": shapes["shared.weight"] for half in ("encoder", "decoder")}
    return shapes | copies | published.text_decoder_shapes(arch), torch.float32


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what was written becomes `path` only if nothing went wrong."""
    unfinished = path.with_name(f"{path.name}.partial")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except RuntimeError as error:  # PyTorch's writer, when the disk is full
        raise CheckpointError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    with telling(path, CheckpointError):
        path.write_text(json.dumps(content, indent=2) + "\n")


Spread = Callable[[str, Shape], tuple[float, float]]  # a tensor's mean and standard deviation
Make = Callable[[str, Shape], Tensor]


def _maker(seed: int, directory: Path, spread: Spread) -> Make:
    def make(name: str, shape: Shape) -> Tensor:
        digest = hashlib.sha256(f"{seed} {directory.name} {name}".encode()).digest()
        number = int.from_bytes(digest[:_SEED_BYTES])
        mean, deviation = spread(name, shape)
        if math.prod(shape) >= _LARGE:
            return _cut(_block(seed), number % _BLOCK, shape).mul_(deviation).add_(mean)
        return _normal(shape, number, mean, deviation)

    return make


def _normal(shape: Shape, seed: int, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(mean, deviation, generator=generator)


@lru_cache(maxsize=1)
def _block(seed: int) -> Tensor:
    return _normal((_BLOCK,), seed)


def _cut(block: Tensor, start: int, shape: Shape) -> Tensor:
    """Numbers of `block`, repeated without end, from `start` on."""
    filled, values = 0, torch.empty(math.prod(shape), dtype=block.dtype)
    while filled < len(values):
        piece = block[start : start + len(values) - filled]
        values[filled : filled + len(piece)] = piece
        filled, start = filled + len(piece), 0
    return values.reshape(shape)


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
        raise RuntimeError("this archive holds weights and no network")


def write_torchscript(path: Path, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """An archive of tensors under published names, as the tokenizers are published; it holds no network."""
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
