"""The contract of record: every pbtxt, without a server."""

import re
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from cosmos_triton.pipeline import ENSEMBLES, NETWORKS, STAGES

MODELS = Path(__file__).parents[2] / "model_repository"
NAMES = sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir())
STAGE_NAMES = [name for name in NAMES if name not in ENSEMBLES]


def parse(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


def config(name: str) -> ModelConfig:
    return parse(MODELS / name / "config.pbtxt")


def tensors(declared) -> dict[str, tuple[str, tuple[int, ...], bool]]:
    return {
        t.name: (DataType.Name(t.data_type), tuple(t.dims), getattr(t, "optional", False)) for t in declared
    }


def test_the_folder_holds_the_stages_and_ensembles_of_the_launcher() -> None:
    assert set(NAMES) == {*ENSEMBLES, *STAGES}


@pytest.mark.parametrize("name", NAMES)
def test_config_parses_under_its_own_name_without_batching(name: str) -> None:
    parsed = config(name)
    assert parsed.name == name
    assert parsed.max_batch_size == 0
    assert (MODELS / name / "1").is_dir()


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_every_stage_has_its_own_instances_and_a_cpu_variant(name: str) -> None:
    assert len(config(name).instance_group) == 1
    cpu = parse(MODELS / name / "configs" / "cpu.pbtxt")
    assert [group.kind for group in cpu.instance_group] == [cpu.instance_group[0].KIND_CPU]
    assert cpu.backend == "python"


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_variants_have_equal_tensors(name: str) -> None:
    production = config(name)
    for path in sorted((MODELS / name / "configs").glob("*.pbtxt")):
        variant = parse(path)
        assert variant.name == name
        assert tensors(variant.input) == tensors(production.input), path
        assert tensors(variant.output) == tensors(production.output), path


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run_on_tensorrt_in_production(name: str) -> None:
    parsed = config(name)
    assert parsed.backend == "tensorrt"
    assert parsed.default_model_filename == "model.plan"


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_model_py_is_there_and_small(name: str) -> None:
    lines = (MODELS / name / "1" / "model.py").read_text().splitlines()
    assert len(lines) <= 60
    assert "class TritonPythonModel" in "\n".join(lines)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_public_contract(name: str) -> None:
    parsed = config(name)
    expected_inputs = {
        "media": ("TYPE_STRING", (1,)),
        "num_input_frames": ("TYPE_INT32", (1,)),
        "seed": ("TYPE_INT64", (1,)),
        "temperature": ("TYPE_FP32", (1,)),
        "top_p": ("TYPE_FP32", (1,)),
    }
    if "video2world" in name:
        expected_inputs["prompt"] = ("TYPE_STRING", (1,))
    assert {key: value[:2] for key, value in tensors(parsed.input).items()} == expected_inputs
    assert {key: value[:2] for key, value in tensors(parsed.output).items()} == {
        "video": ("TYPE_STRING", (1,)),
        "frames": ("TYPE_UINT8", (33, -1, -1, 3)),
        "tokens": ("TYPE_INT32", (5, -1, -1)),
        "report": ("TYPE_STRING", (1,)),
    }


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble_edges_join(name: str) -> None:
    """Each edge has one producer, at least one reader, and the same type and shape at both ends."""
    parsed = config(name)
    public_in, public_out = tensors(parsed.input), tensors(parsed.output)
    produced = {key: value[:2] for key, value in public_in.items()}
    read: set[str] = set()
    steps = parsed.ensemble_scheduling.step
    assert [step.model_name for step in steps] == [stage.name for stage in ENSEMBLES[name].steps]
    for step in steps:
        for own, edge in step.output_map.items():
            assert edge not in produced, f"{edge} has two producers"
            produced[edge] = tensors(config(step.model_name).output)[own][:2]
    for step in steps:
        inputs = tensors(config(step.model_name).input)
        for own, edge in step.input_map.items():
            assert produced[edge] == inputs[own][:2], f"{edge} → {step.model_name}.{own}"
            if edge in public_in and public_in[edge][2]:
                assert inputs[own][2], f"optional {edge} feeds required {step.model_name}.{own}"
            read.add(edge)
        required = {key for key, value in inputs.items() if not value[2]}
        assert required <= set(step.input_map), f"{step.model_name} lacks {required - set(step.input_map)}"
    for edge, declared in public_out.items():
        assert produced[edge] == declared[:2]
    internal = set(produced) - set(public_in) - set(public_out)
    assert all(edge.startswith("_") for edge in internal)
    assert read | set(public_out) == set(produced), "an edge that nobody reads keeps Triton from loading"


def test_triton_is_imported_at_one_door() -> None:
    """Only serving/ and model.py files may know Triton's Python backend."""
    source = MODELS.parent / "src" / "cosmos_triton"
    importing = {
        path.relative_to(source).parts[0]
        for path in source.rglob("*.py")
        if re.search(r"^\s*import triton_python_backend_utils", path.read_text(), re.MULTILINE)
    }
    assert importing == {"serving"}
