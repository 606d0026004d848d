"""Every attribute of TensorRT that the code uses exists in every version it is meant for."""

import ast
import json
from pathlib import Path

import pytest

SOURCES = (
    "export/cosmos_export/tensorrt_library.py",
    "export/cosmos_export/plan_builder.py",
    "src/cosmos_triton/runtimes/tensorrt.py",
)
# What a variable of that name holds, in the sources above.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "rejection": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
AHEAD_OF_TIME_ONLY = {"num_compute_capabilities", "set_compute_capability", "ComputeCapability"}


def used_attributes(repository: Path) -> set[tuple[str, str]]:
    """(class, attribute) of every access; class "" is the module itself."""
    found: set[tuple[str, str]] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse((repository / source).read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            chain = ast.unparse(node).removeprefix("self.").split(".")
            if chain[0] == "trt" and len(chain) >= 2:
                found.add((".".join(chain[1:-1]), chain[-1]))
            elif len(chain) >= 2 and chain[-2] in CLASSES:
                found.add((CLASSES[chain[-2]], chain[-1]))
    return {(owner, attribute) for owner, attribute in found if not attribute.startswith("__")}


@pytest.fixture(scope="module")
def used(repository: Path) -> set[tuple[str, str]]:
    return used_attributes(repository)


def test_the_sources_are_read(used: set[tuple[str, str]]) -> None:
    assert {
        ("Builder", "build_serialized_network_to_stream"),
        ("OnnxParser", "parse_from_file"),
        ("", "IStreamWriter"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("IBuilderConfig", "set_memory_pool_limit"),
        ("ICudaEngine", "get_tensor_mode"),
        ("IExecutionContext", "execute_async_v3"),
    } <= used


@pytest.mark.parametrize("version", ["10.13.3.9", "10.16.1.11", "11.1.0.106", "11.4.0.106"])
def test_tensorrt_has_what_is_used(version: str, used: set[tuple[str, str]], repository: Path) -> None:
    document = json.loads((repository / "tests" / "data" / "tensorrt" / f"{version}.json").read_text())
    assert document["version"] == version
    classes: dict[str, list[str]] = document["classes"]
    for owner, attribute in sorted(used):
        if attribute in AHEAD_OF_TIME_ONLY:
            continue
        offered = classes if owner == "" else classes[owner]
        assert attribute in offered, f"TensorRT {version} has no {owner}.{attribute}"


def test_tensorrt_for_rtx_has_what_the_builder_uses(used: set[tuple[str, str]]) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    for owner, attribute in sorted(used):
        holder = trt
        for name in filter(None, owner.split(".")):
            holder = getattr(holder, name)
        assert hasattr(holder, attribute), f"TensorRT for RTX has no {owner}.{attribute}"
