"""text_tokenizer: a prompt becomes T5 token ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.guardrails import decode_prompt
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages import StageResult
from cosmos_triton.serving.values import to_bytes


class TextTokenizer:
    """Pads to and truncates at 512 tokens, `</s>` kept, like the models' training did."""

    def __init__(self, settings: StageSettings, metrics: Metrics) -> None:
        from transformers import AutoTokenizer

        folder = CheckpointFolder(settings.checkpoint_dir)
        self._max_tokens = folder.text_encoder().architecture.max_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(folder.text_tokenizer(), local_files_only=True)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> StageResult:
        """`prompt` BYTES [1] → `input_ids`, `attention_mask` INT32 [512]."""
        prompt = decode_prompt(to_bytes(inputs, "prompt") or b"")
        encoded = self._tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=self._max_tokens,
            return_attention_mask=True,
        )
        return StageResult(
            {
                "input_ids": np.asarray(encoded["input_ids"], dtype=np.int32),
                "attention_mask": np.asarray(encoded["attention_mask"], dtype=np.int32),
            }
        )

    def close(self) -> None:
        """Nothing to release."""
