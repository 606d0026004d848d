"""What a stage is told at start: its parameters, its placement, the checkpoint folder."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from cosmos_triton.serving.parameters import StageParameters, ignored_by_stage, read_parameters

CHECKPOINT_VARIABLE = "COSMOS_CHECKPOINT_DIR"
DEFAULT_CHECKPOINT_DIR = "/checkpoints"

P_co = TypeVar("P_co", bound=StageParameters, covariant=True)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSettings(Generic[P_co]):
    """One model instance's settings.

    Args:
        model: the Triton model's name.
        device: `cpu`, or `cuda:N` for a KIND_GPU instance.
        checkpoint_dir: folder of checkpoints, from the environment variable COSMOS_CHECKPOINT_DIR.
        parameters: what the stage may be told besides; see `parameters`.
    """

    model: str
    device: str
    checkpoint_dir: Path
    parameters: P_co

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> "StageSettings[Any]":
        """Read the arguments that Triton passes to `initialize`; variables without effect are in the log.

        Raises:
            ConfigurationError: a parameter does not fit.
        """
        model = args["model_name"]
        config: dict[str, Any] = json.loads(args["model_config"])
        written = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        for warning in ignored_by_stage(model, written, os.environ).values():
            _log.warning("%s", warning)
        on_gpu = args["model_instance_kind"] == "GPU"
        return cls(
            model=model,
            device=f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu",
            checkpoint_dir=Path(os.environ.get(CHECKPOINT_VARIABLE, DEFAULT_CHECKPOINT_DIR)),
            parameters=cast(P_co, read_parameters(model, written, os.environ)),
        )
