"""Where a network's weights are between requests.

    resident   weights stay on the device
    offload    weights wait in pinned host memory; on the device they take no room between requests

This module needs no torch: stages without a network of their own read the policy too.
"""

from enum import StrEnum

from cosmos_triton.errors import ConfigurationError


class Residency(StrEnum):
    """Where weights are between requests."""

    RESIDENT = "resident"
    OFFLOAD = "offload"

    @classmethod
    def parse(cls, text: str, what: str) -> "Residency":
        """The value named `text`; `what` names the setting in the error."""
        try:
            return cls(text)
        except ValueError:
            raise ConfigurationError(f"{what}={text!r} is neither resident nor offload") from None
