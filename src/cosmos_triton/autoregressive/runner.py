"""Runs a scheduler's commands on the network's device, ahead of the host where the device allows it.

On a GPU a step is launched, not awaited: decode passes are CUDA graphs, one for each number of
sequences, and the positions that the sequences have reached are copied out behind each pass. The host reads
them one pass late, so the GPU always has its next pass when it ends one.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosmos_triton.architectures import AutoregressiveArchitecture
from cosmos_triton.autoregressive import plain_steps
from cosmos_triton.autoregressive.commands import Decode, Prefill, Start
from cosmos_triton.autoregressive.device_memory import DeviceMemory, ResidentMemory
from cosmos_triton.autoregressive.kv_cache import KVCache, slot_bytes
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.sequences import Sequences, Steps, decode, prefill
from cosmos_triton.autoregressive.settings import EngineSettings, automatic_window
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer

_log = logging.getLogger(__name__)

_CPU_SLOTS = 8


@dataclass(frozen=True)
class Launched:
    """A step that the device was given; `wait` returns when the device has done it."""

    slots: tuple[int, ...]
    positions: Tensor | None  # [slots of the cache] on the host, complete once the event has passed
    event: torch.cuda.Event | None

    def wait(self) -> dict[int, int]:
        """Slot → position of its last known token, after this step; empty for a prefill."""
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
    """The network, the memory of all slots, and the commands on them.

    Args:
        network: on the device where everything runs.
        settings: sizes; `max_videos` decides the memory.
        memory: where weights and cache are; commands run while it is present. None: on the device for good.
    """

    def __init__(
        self, network: AutoregressiveTransformer, settings: EngineSettings, memory: DeviceMemory | None = None
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

        Compiles kernels, for the last chunks of prefixes too, which differ in length; captures the passes.
        What is set up for each thread, such as the libraries' handles, is set up for this one.
        """
        if self.device.type != "cuda":
            return
        for latents in range(1, self.architecture.latent_shape[0]):
            self._warm_up_prefix(latents)
        if self.settings.graphs:
            for videos in range(self.slots, 0, -1):  # the largest first: the others share its memory
                self.capture(videos)
                self.launch(Decode(tuple(range(videos))))  # its first replay takes a graph to the device
        self.tokens(0, 0, 1)
        torch.cuda.synchronize(self.device)

    def _warm_up_prefix(self, latents: int) -> None:
        a, chunk = self.architecture, self.settings.prefill_chunk
        _, height, width = a.latent_shape
        length = a.video_start + latents * height * width
        text = np.zeros((self.settings.text_rows, a.text_dim), np.float32) if a.text_dim else None
        self.start(Start(0, np.zeros(length, np.int64), text, SamplingParameters.recommended(a, seed=0)))
        for start in range(0, length - 1, chunk):
            self.launch(Prefill(0, start, min(start + chunk, length - 1)))

    def start(self, command: Start) -> None:
        """Give a slot to a new sequence."""
        prefix = torch.from_numpy(command.prefix).to(self.device)
        self.sequences.start(command.slot, prefix, command.parameters)
        if command.text_embeddings is not None:
            self.network.store_text(torch.from_numpy(command.text_embeddings), command.slot, self.cache)

    def launch(self, command: Prefill | Decode) -> Launched:
        """Give the device a step to do, behind those it was given before."""
        if isinstance(command, Prefill):
            slot, start, stop = command.slot, command.start, command.stop
            prefill(self.network, self.cache, self.sequences, slot, start, stop)
            return self._launched((slot,), positions=False)
        self._launch_pass(command.slots)
        return self._launched(command.slots, positions=True)

    def _launch_pass(self, slots: tuple[int, ...]) -> None:
        captured = self._graphs.get(len(slots))
        chosen = torch.tensor(slots, dtype=torch.int64)
        if captured is None:
            self._decode(chosen.to(self.device))
            return
        if captured.loaded != slots:
            captured.slots.copy_(chosen.pin_memory(), non_blocking=True)
            captured.loaded = slots
        captured.graph.replay()

    def tokens(self, slot: int, start: int, stop: int) -> Tensor:
        """Tokens start..stop-1 of a sequence, on the host."""
        return self.sequences.tokens[slot, start:stop].cpu()

    def _decode(self, slots: Tensor) -> None:
        window, source = self.window(len(slots)), self.settings.draft_source
        decode(self.network, self.cache, self.sequences, slots, window, self._steps, source)

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

    def _launched(self, slots: tuple[int, ...], *, positions: bool) -> Launched:
        if self.device.type != "cuda":
            return Launched(slots, self.sequences.positions.clone() if positions else None, None)
        reached = None
        if positions:
            reached = torch.empty(self.slots, dtype=torch.int64, pin_memory=True)
            reached.copy_(self.sequences.positions, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return Launched(slots, reached, event)

    def _slots_that_fit(self, each: int) -> int:
        """How many sequences of `each` bytes the device's free memory holds, at least 1."""
        if self.device.type != "cuda":
            return _CPU_SLOTS
        free = torch.cuda.mem_get_info(self.device)[0] - self.memory.absent_bytes
        return max(1, int(free * self.settings.memory_fraction) // each)
