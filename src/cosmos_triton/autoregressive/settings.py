"""How an engine is set up, apart from the network it runs."""

from dataclasses import dataclass

from cosmos_triton.architectures import TEXT_ROWS
from cosmos_triton.errors import ConfigurationError

ROW_BUDGET = 64  # up to so many rows, a decode pass costs about as much as with one: it is memory bound

DRAFT_SOURCES = {
    "frame": "the token at the same position one latent frame earlier",
    "above": "the token above, in the same frame",
    "left": "the last token drawn",
    "random": "a hash of the position",
}
"""Where the draft token of a position comes from that no pass has reached."""


@dataclass(frozen=True)
class EngineSettings:
    """Sizes and policies of an engine.

    Args:
        max_videos: videos in flight at once, each with a cache slot; 0 takes as many as the memory
            that is free on the GPU holds (8 on a CPU).
        max_queue: videos that may wait for a slot.
        prefill_chunk: prefix tokens processed between two decode passes; bounds how long a new
            video stalls the running ones.
        window: tokens of a video verified in one pass; 1 decodes one by one, 0 chooses by the number of
            videos in flight (always 1 on a CPU, where a pass costs as much as its tokens).
        draft_source: where first drafts come from, one of `DRAFT_SOURCES`.
        text_rows: rows of text embeddings of every Video2World request.
        memory_fraction: share of the free GPU memory that max_videos = 0 may take.
        graphs: capture decode passes as CUDA graphs; of no effect on a CPU.

    Raises:
        ConfigurationError: a value is out of range.
    """

    max_videos: int = 8
    max_queue: int = 32
    prefill_chunk: int = 1024
    window: int = 0
    draft_source: str = "above"
    text_rows: int = TEXT_ROWS
    memory_fraction: float = 0.8
    graphs: bool = True

    def __post_init__(self) -> None:
        for name, least in {
            "max_videos": 0,
            "max_queue": 0,
            "prefill_chunk": 1,
            "window": 0,
            "text_rows": 1,
        }.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} {getattr(self, name)} is below {least}")
        if self.draft_source not in DRAFT_SOURCES:
            raise ConfigurationError(
                f"draft_source {self.draft_source!r} is none of {', '.join(DRAFT_SOURCES)}"
            )
        if not 0 < self.memory_fraction <= 1:
            raise ConfigurationError(f"memory_fraction {self.memory_fraction} is not in (0, 1]")


def automatic_window(videos: int) -> int:
    """The window for so many videos in flight: the largest power of two in the row budget, at most 32."""
    return min(32, 1 << max(1, ROW_BUDGET // videos).bit_length() - 1)
