import math

import pytest

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.errors import InvalidInput


def test_recommended_values_are_those_of_the_model() -> None:
    found = [
        SamplingParameters.recommended(AUTOREGRESSIVE[name]).top_p for name in ("4B", "5B", "12B", "13B")
    ]
    assert found == [0.8, 0.7, 0.9, 0.8]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", -1.0),
        ("top_p", 1.0001),
        ("top_p", math.nan),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    values = {"seed": 0, "temperature": 1.0, "top_p": 0.8, field: value}
    with pytest.raises(InvalidInput, match=f"{field} {value}".replace("+", ".")):
        SamplingParameters(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e30])
def test_every_seed_and_any_temperature_from_zero_up_is_taken(seed: int, temperature: float) -> None:
    SamplingParameters(seed, temperature, 1.0)
