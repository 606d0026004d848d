"""Which stages leave the GPU between requests: one switch, and one parameter a stage."""

import os
from typing import Any

from cosmos_triton.residency import Residency
from cosmos_triton.serving.settings import StageSettings

RESIDENCY_VARIABLE = "COSMOS_RESIDENCY"


def residency(settings: StageSettings[Any]) -> Residency:
    """The stage's parameter `residency`; where it is empty, COSMOS_RESIDENCY; `resident` without either.

    Raises:
        ConfigurationError: the value is neither `resident` nor `offload`.
    """
    own: str = settings.parameters.residency
    if own:
        return Residency.parse(own, f"{settings.model}: residency")
    return Residency.parse(os.environ.get(RESIDENCY_VARIABLE) or "resident", RESIDENCY_VARIABLE)
