"""Runs a network's steps on its device, ahead of the host where the device allows it.

On a GPU a step is launched, not awaited: decode passes are CUDA graphs, one for each number of
sequences, and where the sequences have got to is copied out behind each pass. The host reads it one
pass late, so the GPU always has its next pass when it ends one.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive import plain_steps
from cosmos_triton.autoregressive.kv_cache import KVCache, slot_bytes
from cosmos_triton.autoregressive.memory import Memory, ResidentMemory
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.sequences import Sequences, Steps, decode, prefill
from cosmos_triton.autoregressive.settings import EngineSettings, automatic_window
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer

_log = logging.getLogger(__name__)

_CPU_SLOTS = 8


@dataclass(frozen=True)
class Step:
    """A launched step; `wait` returns when the device has done it."""

    slots: tuple[int, ...]
    positions: Tensor | None  # [slots of the cache] on the host, complete once the event has passed
    event: torch.cuda.Event | None

    def wait(self) -> dict[int, int]:
        """Slot → place of its last known token, after this step; empty for a prefill."""
        if self.event is not None:
            self.event.synchronize()
        if self.positions is None:
            return {}
        return {slot: int(self.positions[slot]) for slot in self.slots}


@dataclass
class _Captured:
    """A decode pass as a graph."""

    graph: torch.cuda.CUDAGraph
    slots: Tensor  # [B] int64, which the graph reads
    loaded: tuple[int, ...]  # what it holds


class Runner:
    """The network, the memory of all slots, and the steps on them.

    Args:
        network: on the device where everything runs.
        settings: sizes; `max_videos` decides the memory.
        memory: where weights and cache are; steps run while it is present. None: on the device for good.
    """

    def __init__(
        self, network: AutoregressiveTransformer, settings: EngineSettings, memory: Memory | None = None
    ) -> None:
        self.network = network
        self.settings = settings
        self.device = network.output.device
        self.memory = memory or ResidentMemory(self.device)
        self.lag = 1 if self.device.type == "cuda" else 0  # steps the host may be behind
        architecture, dtype, rows = network.architecture, network.output.dtype, settings.text_rows
        each = slot_bytes(architecture, text_rows=rows, dtype=dtype)
        self.slots = settings.max_videos or self._slots_that_fit(each)
        widest = max(self.window(videos) for videos in range(1, self.slots + 1))
        self.cache = KVCache(
            architecture,
            self.slots,
            text_rows=rows,
            dtype=dtype,
            device=self.device,
            memory=self.memory.cache(self.slots * each),
        )
        self.sequences = Sequences.allocate(architecture, self.slots, widest, self.device)
        self._steps: Steps = plain_steps
        self._graphs: dict[int, _Captured] = {}
        if self.device.type == "cuda":
            from cosmos_triton.autoregressive.kernels import (
                steps as fused_steps,  # needs Triton's compiler, which CPU builds lack
            )

            self._steps = fused_steps

    @property
    def architecture(self) -> AutoregressiveArchitecture:
        """Of the network."""
        return self.network.architecture

    def window(self, videos: int) -> int:
        """Tokens of each video in a pass over `videos` videos."""
        if self.settings.window:
            return self.settings.window
        return automatic_window(videos) if self.device.type == "cuda" else 1

    def use_device(self) -> None:
        """Make the device that of the calling thread, before anything else of the runner."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def warm_up(self) -> None:
        """Run once what requests will run, on the thread that will run it; a CPU gains nothing by it.

        Compiles kernels, for prompts' last chunks too, which differ in length; captures the passes. What
        is set up for each thread, such as the libraries' handles, is set up for this one.
        """
        if self.device.type != "cuda":
            return
        for latents in range(1, self.architecture.latent_shape[0]):
            self._warm_up_prompt(latents)
        if self.settings.graphs:
            for videos in range(self.slots, 0, -1):  # the largest first: the others share its memory
                self.capture(videos)
                self.decode(tuple(range(videos)))  # the first replay of a graph takes it to the device
        self.tokens(0, 0, 1)
        torch.cuda.synchronize(self.device)

    def _warm_up_prompt(self, latents: int) -> None:
        a = self.architecture
        _, height, width = a.latent_shape
        rows = a.video_start + latents * height * width
        text = torch.zeros(self.settings.text_rows, a.text_dim) if a.text_dim else None
        self.start(0, torch.zeros(rows, dtype=torch.int64), text, SamplingParameters.recommended(a, seed=0))
        for start in range(0, rows - 1, self.settings.prefill_chunk):
            self.prefill(0, start, min(start + self.settings.prefill_chunk, rows - 1))

    def start(
        self, slot: int, prompt: Tensor, context: Tensor | None, parameters: SamplingParameters
    ) -> None:
        """Give a slot to a new sequence: prompt [P] int64 and context [rows, text_dim] from the host."""
        self.sequences.start(slot, prompt.to(self.device), parameters)
        if context is not None:
            self.network.store_text(context, slot, self.cache)

    def prefill(self, slot: int, start: int, stop: int) -> Step:
        """Launch the filling of cache rows start..stop-1 of a sequence."""
        prefill(self.network, self.cache, self.sequences, slot, start, stop)
        return self._launched((slot,), positions=False)

    def decode(self, slots: tuple[int, ...]) -> Step:
        """Launch one pass over sequences whose prompts are filled."""
        captured = self._graphs.get(len(slots))
        chosen = torch.tensor(slots, dtype=torch.int64)
        if captured is None:
            self._decode(chosen.to(self.device))
        else:
            if captured.loaded != slots:
                captured.slots.copy_(chosen.pin_memory(), non_blocking=True)
                captured.loaded = slots
            captured.graph.replay()
        return self._launched(slots, positions=True)

    def tokens(self, slot: int, start: int, stop: int) -> Tensor:
        """Tokens start..stop-1 of a sequence, on the host."""
        return self.sequences.tokens[slot, start:stop].cpu()

    def _decode(self, slots: Tensor) -> None:
        window = self.window(len(slots))
        decode(self.network, self.cache, self.sequences, slots, window, self._steps, self.settings.guess)

    def capture(self, videos: int) -> None:
        """Make a graph of the pass over so many videos. Runs the pass, so nothing may be in flight."""
        slots = torch.arange(videos, device=self.device)
        self._decode(slots)  # compiles
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.graph.pool() for other in self._graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            self._decode(slots)
        self._graphs[videos] = _Captured(graph, slots, tuple(range(videos)))
        _log.info("captured a pass over %d videos, window %d", videos, self.window(videos))

    def _launched(self, slots: tuple[int, ...], *, positions: bool) -> Step:
        if self.device.type != "cuda":
            return Step(slots, self.sequences.positions.clone() if positions else None, None)
        reached = None
        if positions:
            reached = torch.empty(self.slots, dtype=torch.int64, pin_memory=True)
            reached.copy_(self.sequences.positions, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return Step(slots, reached, event)

    def _slots_that_fit(self, each: int) -> int:
        """How many sequences of `each` bytes the device's free memory holds, at least 1."""
        if self.device.type != "cuda":
            return _CPU_SLOTS
        free = torch.cuda.mem_get_info(self.device)[0] - self.memory.to_come
        return max(1, int(free * self.settings.memory_fraction) // each)
