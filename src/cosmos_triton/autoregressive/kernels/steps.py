# mypy: disable-error-code="import, no-untyped-def, untyped-decorator"
"""The steps of a decode pass as kernels: one before the network, three behind it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive.kernels.nucleus import sample
from cosmos_triton.autoregressive.kernels.overlap import overlap_options, wait_for_predecessor
from cosmos_triton.autoregressive.sequences import Sequences, Work
from cosmos_triton.autoregressive.settings import DRAFT_SOURCES

__all__ = ["accept", "gather", "sample"]


@triton.jit
def _gather(
    tokens_ptr,  # [slots, width] int64
    positions_ptr,  # [slots] int64
    seeds_ptr,
    temperatures_ptr,
    top_ps_ptr,
    slots_ptr,  # [B] int64
    fed_ptr,  # [B, W] int64; results from here on
    fed_positions_ptr,
    targets_ptr,
    row_seeds_ptr,  # [B W] int64
    row_temperatures_ptr,
    row_top_ps_ptr,
    width,
    farthest,
    W,
    BLOCK: tl.constexpr,
):
    b = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < W
    slot = tl.load(slots_ptr + b)
    position = tl.load(positions_ptr + slot) + lane
    row = b * W + lane
    tl.store(fed_ptr + row, tl.load(tokens_ptr + slot * width + position, mask=inside), mask=inside)
    tl.store(fed_positions_ptr + row, tl.minimum(position, farthest), mask=inside)
    tl.store(targets_ptr + row, position + 1, mask=inside)
    tl.store(row_seeds_ptr + row, tl.load(seeds_ptr + slot) + lane * 0, mask=inside)
    tl.store(row_temperatures_ptr + row, tl.load(temperatures_ptr + slot) + lane * 0.0, mask=inside)
    tl.store(row_top_ps_ptr + row, tl.load(top_ps_ptr + slot) + lane * 0.0, mask=inside)


@triton.jit
def _accept(
    tokens_ptr,  # [slots, width] int64
    positions_ptr,  # [slots] int64
    slots_ptr,  # [B] int64
    fed_ptr,  # [B, W] int64
    drawn_ptr,  # [B, W] int64
    width,
    last,
    W,
    back,  # how many positions back the draft of a position lies
    vocabulary,
    BLOCK: tl.constexpr,
    DRAFT_SOURCE: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    b = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < W
    slot = tl.load(slots_ptr + b)
    known = tl.load(positions_ptr + slot)
    draft = tl.load(fed_ptr + b * W + lane + 1, mask=lane + 1 < W, other=-1)
    wait_for_predecessor(OVERLAP)
    drawn = tl.load(drawn_ptr + b * W + lane, mask=inside, other=0)
    wrong = tl.min(tl.where((draft != drawn) & inside, lane, BLOCK), axis=0)  # the last lane always is
    row = tokens_ptr + slot * width
    tl.store(row + known + 1 + lane, drawn, mask=inside)
    tl.debug_barrier()  # drafts may be copies of what was just written
    ahead = known + 1 + W + lane
    if DRAFT_SOURCE == "random":
        next_draft = ((ahead * 2654435761) >> 7) % vocabulary
    elif DRAFT_SOURCE == "left":
        next_draft = tl.load(drawn_ptr + b * W + W - 1) + lane * 0
    else:
        next_draft = tl.load(row + tl.maximum(ahead - back, 0), mask=inside, other=0)
    if W > 1:
        tl.store(row + ahead, next_draft, mask=inside)
    tl.store(positions_ptr + slot, tl.minimum(known + wrong + 1, last))


def gather(
    sequences: Sequences, slots: Tensor, window: int, architecture: AutoregressiveArchitecture
) -> Work:
    """See `Steps.gather`. Launched as an ordinary kernel.

    It is the barrier behind which kernels of the pass may fetch its results before they wait.
    """
    rows = len(slots) * window

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=slots.device)

    work = Work(
        tokens=empty(len(slots), window, dtype=torch.int64),
        positions=empty(len(slots), window, dtype=torch.int64),
        targets=empty(rows, dtype=torch.int64),
        seeds=empty(rows, dtype=torch.int64),
        temperatures=empty(rows, dtype=torch.float32),
        top_ps=empty(rows, dtype=torch.float32),
    )
    _gather[(len(slots),)](
        sequences.tokens,
        sequences.positions,
        sequences.seeds,
        sequences.temperatures,
        sequences.top_ps,
        slots,
        work.tokens,
        work.positions,
        work.targets,
        work.seeds,
        work.temperatures,
        work.top_ps,
        sequences.tokens.shape[1],
        architecture.max_sequence - 1,
        window,
        BLOCK=triton.next_power_of_2(window),
        num_warps=1,
    )
    return work


def accept(
    sequences: Sequences,
    slots: Tensor,
    fed: Tensor,
    drawn: Tensor,
    architecture: AutoregressiveArchitecture,
    draft_source: str,
) -> None:
    """See `Steps.accept`."""
    assert draft_source in DRAFT_SOURCES
    _, height, width = architecture.latent_shape
    window = fed.shape[1]
    _accept[(len(slots),)](
        sequences.tokens,
        sequences.positions,
        slots,
        fed,
        drawn,
        sequences.tokens.shape[1],
        architecture.sequence_length - 1,
        window,
        height * width if draft_source == "frame" else width,
        architecture.vocabulary,
        BLOCK=triton.next_power_of_2(window),
        DRAFT_SOURCE=draft_source,
        num_warps=1,
        **overlap_options(fed),
    )
