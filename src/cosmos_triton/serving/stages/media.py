"""media_decoder and media_encoder: the two ends of every ensemble."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.checkpoints import CheckpointFolder, catalog
from cosmos_triton.errors import InvalidInput
from cosmos_triton.media import Deadline, MediaLimits, context_frames, decode_media, encode_mp4
from cosmos_triton.serving.checks import check_picture_size
from cosmos_triton.serving.parameters import StageParameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import from_bytes, integer, to_bytes


class MediaDecoder:
    """Decodes within limits, takes the frames asked for, resizes and crops them."""

    def __init__(self, settings: StageSettings[StageParameters]) -> None:
        self._geometry = catalog.geometry(CheckpointFolder(settings.checkpoint_dir))
        self._limits = MediaLimits()

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`media` BYTES [1] → `frames` FP32 [3,9,H,W] in [-1, 1], `used_input_frames` INT32 [1]."""
        data = to_bytes(inputs, "media")
        if data is None:
            raise InvalidInput("media is missing")
        deadline = Deadline(self._limits.max_seconds)
        media = decode_media(
            data,
            num_input_frames=integer(inputs, "num_input_frames"),
            limits=self._limits,
            deadline=deadline,
        )
        frames = context_frames(media.frames, self._geometry.height, self._geometry.width, deadline)
        section = {
            "input": {
                "kind": media.kind,
                "width": media.width,
                "height": media.height,
                "frames": media.source_frames,
                "used_frames": media.num_input_frames,
            },
            "notes": list(media.notes),
        }
        return StageResult(
            {
                "frames": frames.numpy(),
                "used_input_frames": np.array([media.num_input_frames], dtype=np.int32),
            },
            section,
        )


class MediaEncoder:
    """Writes the MP4 and closes the report; the one stage that all public outputs come from."""

    def __init__(self, settings: StageSettings[StageParameters]) -> None:
        """Nothing to set up."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`frames` UINT8 [33,H,W,3] → `video` BYTES [1]; `frames` and `tokens` as they came."""
        frames = inputs["frames"]
        check_picture_size("frames", frames)
        count, height, width, _ = frames.shape
        section = {"output": {"frames": count, "width": width, "height": height}}
        outputs = {"video": from_bytes(encode_mp4(frames)), "frames": frames, "tokens": inputs["tokens"]}
        return StageResult(outputs, section, last=True)
