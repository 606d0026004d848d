"""What a stage is told at start: its pbtxt parameters, its placement, the checkpoint folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_triton.errors import ConfigurationError

CHECKPOINT_VARIABLE = "COSMOS_CHECKPOINT_DIR"
DEFAULT_CHECKPOINT_DIR = "/checkpoints"


@dataclass(frozen=True)
class StageSettings:
    """One model instance's settings.

    Args:
        model: the Triton model's name.
        device: `cpu`, or `cuda:N` for a KIND_GPU instance.
        checkpoint_dir: folder of checkpoints, from the environment variable COSMOS_CHECKPOINT_DIR.
        parameters: `parameters` of the pbtxt in force. An environment variable
            COSMOS_<MODEL>_<KEY> (upper case) overrides one of them.
    """

    model: str
    device: str
    checkpoint_dir: Path
    parameters: Mapping[str, str]

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> "StageSettings":
        """Read the arguments that Triton passes to `initialize`."""
        config: dict[str, Any] = json.loads(args["model_config"])
        model = args["model_name"]
        parameters = {
            key: os.environ.get(f"COSMOS_{model}_{key}".upper(), value["string_value"])
            for key, value in config.get("parameters", {}).items()
        }
        on_gpu = args["model_instance_kind"] == "GPU"
        return cls(
            model=model,
            device=f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu",
            checkpoint_dir=Path(os.environ.get(CHECKPOINT_VARIABLE, DEFAULT_CHECKPOINT_DIR)),
            parameters=parameters,
        )

    def text(self, key: str, default: str) -> str:
        """A parameter as text."""
        return self.parameters.get(key, default)

    def integer(self, key: str, default: int) -> int:
        """A parameter as an integer; anything else raises ConfigurationError."""
        value = self.parameters.get(key, str(default))
        try:
            return int(value)
        except ValueError:
            raise ConfigurationError(f"{self.model}: {key}={value!r} is not an integer") from None

    def flag(self, key: str, default: bool) -> bool:
        """A parameter as `true` or `false`; anything else raises ConfigurationError."""
        value = self.parameters.get(key, str(default)).lower()
        if value not in ("true", "false"):
            raise ConfigurationError(f"{self.model}: {key}={value!r} is neither true nor false")
        return value == "true"
