"""What goes into an engine and what comes out; no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.errors import InvalidInput


@dataclass(frozen=True)
class GenerationRequest:
    """One video to generate.

    Args:
        id: name for `Engine.cancel`; need not be unique.
        context_tokens: [T, h, w] int32, the latents that are known; T from 1 to one less than a world's.
        text_embeddings: [rows, text_dim] for Video2World models, rows past the prompt zero; else None.
        parameters: seed, temperature, top_p.
        deadline_s: seconds from submission after which the request is given up; None for no limit.
    """

    id: str
    context_tokens: NDArray[np.integer[Any]]
    text_embeddings: NDArray[np.floating[Any]] | None
    parameters: SamplingParameters
    deadline_s: float | None = None


@dataclass(frozen=True)
class Generation:
    """A finished video."""

    tokens: NDArray[np.int32]  # [T, h, w], the context included
    tokens_generated: int
    passes: int  # forward passes that generated them
    queue_seconds: float  # from submission to a slot
    prefill_seconds: float  # from the slot to the last prefix token in the cache
    decode_seconds: float


def prefix_of(request: GenerationRequest, architecture: AutoregressiveArchitecture) -> NDArray[np.int64]:
    """The tokens that a request's sequence starts with: [P] int64, P ≥ 1.

    The begin-of-video token where the model has one, then the context tokens, flattened.

    Raises:
        InvalidInput: the context tokens do not fit the model.
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
    opening = [] if architecture.bov_token is None else [architecture.bov_token]
    return np.concatenate([np.array(opening, np.int64), tokens.ravel().astype(np.int64)])


def check_text(request: GenerationRequest, architecture: AutoregressiveArchitecture, rows: int) -> None:
    """Raises InvalidInput unless the text embeddings are what the model takes: `rows` rows, or none."""
    text = request.text_embeddings
    if architecture.text_dim is None:
        if text is not None:
            raise InvalidInput(f"{architecture.name} takes no text embeddings")
        return
    if text is None:
        raise InvalidInput(f"{architecture.name} needs text embeddings")
    if text.shape != (rows, architecture.text_dim):
        raise InvalidInput(
            f"the text embeddings have shape {list(text.shape)}, not [{rows}, {architecture.text_dim}]"
        )
    if not np.isfinite(text).all():
        raise InvalidInput("the text embeddings have values that are not finite")
