"""text_tokenizer: a prompt becomes T5 token ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.checkpoints import CheckpointFolder, load_text_tokenizer
from cosmos_triton.guardrails import decode_prompt
from cosmos_triton.serving.parameters import StageParameters
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import to_bytes


class TextTokenizer:
    """Pads to and truncates at 512 tokens, `</s>` kept, like the models' training did."""

    def __init__(self, settings: StageSettings[StageParameters]) -> None:
        folder = CheckpointFolder(settings.checkpoint_dir)
        self._max_tokens = folder.text_encoder().architecture.max_tokens
        self._ids_of = load_text_tokenizer(folder.text_tokenizer(), self._max_tokens)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`prompt` BYTES [1] → `input_ids`, `attention_mask` INT32 [512]."""
        prompt = decode_prompt(to_bytes(inputs, "prompt") or b"")
        ids = self._ids_of(prompt)
        input_ids, mask = np.zeros((2, self._max_tokens), dtype=np.int32)  # <pad> is id 0
        input_ids[: len(ids)], mask[: len(ids)] = ids, 1
        return StageResult({"input_ids": input_ids, "attention_mask": mask})
