"""The full posture's tests run when they are asked for: `pytest -m full_guardrails`.

They need cosmos-guardrail and torchvision, for which the CPU build of torch has no counterpart.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full_guardrails: needs cosmos-guardrail and torchvision")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "full_guardrails" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("full_guardrails")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
