import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.residency.policy import Residency


def test_a_wrong_residency_is_named() -> None:
    with pytest.raises(ConfigurationError, match="COSMOS_RESIDENCY='lazy' is neither resident nor offload"):
        Residency.parse("lazy", "COSMOS_RESIDENCY")
