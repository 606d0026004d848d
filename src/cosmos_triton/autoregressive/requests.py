"""What goes into an engine and what comes out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.errors import InvalidInput


@dataclass(frozen=True)
class GenerationRequest:
    """One video to generate.

    Args:
        id: name for `Engine.cancel` and for progress; need not be unique.
        context_tokens: [T, h, w] int32, the latents that are known; T from 1 to one less than a world's.
        text_embeddings: [rows, text_dim] for Video2World models, rows past the prompt zero; else None.
        parameters: seed, temperature, top_p.
        deadline_s: seconds from submission after which the request is given up; None for no limit.
    """

    id: str
    context_tokens: NDArray[np.integer[Any]]
    text_embeddings: Tensor | None
    parameters: SamplingParameters
    deadline_s: float | None = None


@dataclass(frozen=True)
class Generation:
    """A finished video."""

    tokens: NDArray[np.int32]  # [T, h, w], the context included
    tokens_generated: int
    passes: int  # forward passes that generated them
    queue_seconds: float  # from submission to a slot
    prefill_seconds: float  # from the slot to a full prompt
    decode_seconds: float


@dataclass(frozen=True)
class Progress:
    """How far one request is."""

    id: str
    phase: str  # queued, prefill, decode
    tokens: int  # generated so far
    total: int  # to generate


@dataclass(frozen=True)
class Snapshot:
    """An engine at one moment."""

    alive: bool
    active: int  # videos in a slot
    queued: int
    slots: int
    cache_use: float  # share of all cache rows that hold a token, 0 to 1
    tokens: int  # generated since the start
    passes: int
    prefill_tokens: int
    videos: tuple[Progress, ...]  # active ones first, each group in order of arrival


def prompt_of(request: GenerationRequest, architecture: AutoregressiveArchitecture) -> list[int]:
    """The token sequence a request starts from: the prefix, then the context flattened.

    Raises:
        InvalidInput: context or text does not fit the model.
    """
    latents, height, width = architecture.latent_shape
    tokens = request.context_tokens
    if tokens.ndim != 3 or tokens.shape[1:] != (height, width) or not 1 <= tokens.shape[0] < latents:
        raise InvalidInput(
            f"context tokens have shape {list(tokens.shape)}; {architecture.name} takes "
            f"[T, {height}, {width}] with T from 1 to {latents - 1}"
        )
    if not np.issubdtype(tokens.dtype, np.integer):
        raise InvalidInput(f"context tokens are {tokens.dtype}, not integers")
    if tokens.min() < 0 or tokens.max() >= architecture.vocabulary:
        outside = int(tokens.min() if tokens.min() < 0 else tokens.max())
        raise InvalidInput(f"context token {outside} is not in 0..{architecture.vocabulary - 1}")
    prefix = [] if architecture.bov_token is None else [architecture.bov_token]
    return prefix + [int(token) for token in tokens.ravel()]


def check_text(request: GenerationRequest, architecture: AutoregressiveArchitecture, rows: int) -> None:
    """Raises InvalidInput unless the text embeddings are what the model takes."""
    text = request.text_embeddings
    if architecture.text_dim is None:
        if text is not None:
            raise InvalidInput(f"{architecture.name} takes no text embeddings")
        return
    if text is None:
        raise InvalidInput(f"{architecture.name} needs text embeddings")
    if tuple(text.shape) != (rows, architecture.text_dim):
        raise InvalidInput(
            f"the text embeddings have shape {list(text.shape)}, not [{rows}, {architecture.text_dim}]"
        )
    if not bool(text.isfinite().all()):
        raise InvalidInput("the text embeddings have values that are not finite")
