"""The contract of record: every pbtxt, against itself and against the pipeline, without a server."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from cosmos_client import _contract as client
from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
    Kind,
)
from cosmos_triton.pipeline import (
    DEFAULT,
    ENSEMBLES,
    NETWORKS,
    PROFILES,
    STAGES,
    Network,
    NetworkTensor,
)

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "model_repository"
NAMES = sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir())
TRITON_TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "uint8": "TYPE_UINT8"}
PUBLISHED = {
    "discrete_tokenizer": DISCRETE_TOKENIZERS["DV8x16x16"],
    "continuous_tokenizer": CONTINUOUS_TOKENIZERS["CV8x8x8"],
    "diffusion_decoder": DIFFUSION_DECODERS["7B"],
    "text_encoder": TEXT_ENCODERS["t5-11b"],
}


def parse(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


def config(name: str, profile: str = DEFAULT) -> ModelConfig:
    """The configuration that a server takes: the profile's own, where there is one."""
    variant = MODELS / name / "configs" / f"{profile}.pbtxt"
    return parse(variant if variant.is_file() else MODELS / name / "config.pbtxt")


def tensors(declared) -> dict[str, tuple[str, tuple[int, ...], bool]]:
    return {
        t.name: (DataType.Name(t.data_type), tuple(t.dims), getattr(t, "optional", False)) for t in declared
    }


def test_the_folder_holds_the_stages_and_ensembles_of_the_pipeline() -> None:
    assert set(NAMES) == {*ENSEMBLES, *STAGES}


def test_the_client_knows_the_ensembles() -> None:
    assert set(client.ENSEMBLES) == set(ENSEMBLES)


@pytest.mark.parametrize("name", NAMES)
def test_config_parses_under_its_own_name_without_batching(name: str) -> None:
    parsed = config(name)
    assert parsed.name == name
    assert parsed.max_batch_size == 0
    assert (MODELS / name / "1").is_dir()


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_its_own_instances_and_a_cpu_variant(name: str) -> None:
    assert len(config(name).instance_group) == 1
    cpu = parse(MODELS / name / "configs" / "cpu.pbtxt")
    assert [group.kind for group in cpu.instance_group] == [cpu.instance_group[0].KIND_CPU]


@pytest.mark.parametrize("name", STAGES)
def test_variants_belong_to_profiles_and_have_equal_tensors(name: str) -> None:
    production = config(name)
    for path in sorted((MODELS / name / "configs").glob("*.pbtxt")):
        variant = parse(path)
        assert path.stem in PROFILES.keys() - {DEFAULT}
        assert variant.name == name
        assert tensors(variant.input) == tensors(production.input), path
        assert tensors(variant.output) == tensors(production.output), path


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_only_networks_need_more_than_the_python_backend_and_only_in_production(profile) -> None:
    for stage in STAGES.values():
        if stage.name not in profile.without:
            engine = profile.name == DEFAULT and stage.network is not None
            assert config(stage.name, profile.name).backend == ("tensorrt" if engine else "python")


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_a_stage_with_its_tensors_and_a_plan(network: Network) -> None:
    assert STAGES[network.name].network is network
    parsed = config(network.name)
    assert parsed.default_model_filename == "model.plan"
    sizes = network.sizes(AUTOREGRESSIVE["4B"].geometry, PUBLISHED[network.component])
    for ours, declared in ((network.inputs, parsed.input), ((network.output,), parsed.output)):
        assert [promised(tensor, sizes) for tensor in ours] == [
            (t.name, DataType.Name(t.data_type), dims(t.dims, tensor, sizes))
            for t, tensor in zip(declared, ours, strict=True)
        ]
    assert all(tensor.values is not None for tensor in network.inputs)


def promised(tensor: NetworkTensor, sizes: dict[str, int]) -> tuple[str, str, tuple[int, ...]]:
    return tensor.name, TRITON_TYPES[tensor.dtype], tensor.shape(sizes)


def dims(declared, tensor: NetworkTensor, sizes: dict[str, int]) -> tuple[int, ...]:
    """A config's dims, with the published number for each that it leaves open; only a letter may be."""
    assert all(dim != -1 or isinstance(axis, str) for dim, axis in zip(declared, tensor.axes, strict=True))
    published = tensor.shape(sizes)
    return tuple(size if dim == -1 else dim for dim, size in zip(declared, published, strict=True))


@pytest.mark.parametrize("name", STAGES)
def test_model_py_is_there_and_small(name: str) -> None:
    lines = (MODELS / name / "1" / "model.py").read_text().splitlines()
    assert len(lines) <= 60
    assert "class TritonPythonModel" in "\n".join(lines)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_stages_report_as_the_pipeline_says(stage) -> None:
    parsed = config(stage.name)
    first = next(iter(STAGES))
    assert ("report" in tensors(parsed.output)) == stage.reports
    assert ("report" in tensors(parsed.input)) == (stage.reports and stage.name != first)
    silent = "reports = False" in (MODELS / stage.name / "1" / "model.py").read_text()
    assert silent == (not stage.reports)


@pytest.mark.parametrize("ensemble", ENSEMBLES.values(), ids=ENSEMBLES)
def test_public_contract(ensemble) -> None:
    parsed = config(ensemble.name)
    expected_inputs = {
        "media": ("TYPE_STRING", (1,)),
        "num_input_frames": ("TYPE_INT32", (1,)),
        "seed": ("TYPE_INT64", (1,)),
        "temperature": ("TYPE_FP32", (1,)),
        "top_p": ("TYPE_FP32", (1,)),
    }
    if ensemble.kind is Kind.VIDEO2WORLD:
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
    """Each edge has one producer, then at least one reader, and the same type and shape at both ends."""
    parsed = config(name)
    public_in, public_out = tensors(parsed.input), tensors(parsed.output)
    produced = {key: value[:2] for key, value in public_in.items()}
    read: set[str] = set()
    for step in parsed.ensemble_scheduling.step:
        model = config(step.model_name)
        inputs, outputs = tensors(model.input), tensors(model.output)
        for own, edge in step.input_map.items():
            assert edge in produced, f"{edge} is read before it is there"
            assert produced[edge] == inputs[own][:2], f"{edge} → {step.model_name}.{own}"
            if edge in public_in and public_in[edge][2]:
                assert inputs[own][2], f"optional {edge} feeds required {step.model_name}.{own}"
            read.add(edge)
        required = {key for key, value in inputs.items() if not value[2]}
        assert required <= set(step.input_map), f"{step.model_name} lacks {required - set(step.input_map)}"
        for own, edge in step.output_map.items():
            assert edge not in produced, f"{edge} has two producers"
            produced[edge] = outputs[own][:2]
    for edge, declared in public_out.items():
        assert produced[edge] == declared[:2]
    internal = set(produced) - set(public_in) - set(public_out)
    assert all(edge.startswith("_") for edge in internal)
    assert read | set(public_out) == set(produced), "an edge that nobody reads keeps Triton from loading"


@pytest.mark.parametrize("ensemble", ENSEMBLES.values(), ids=ENSEMBLES)
def test_ensembles_run_the_stages_of_the_pipeline_in_its_order(ensemble) -> None:
    steps = config(ensemble.name).ensemble_scheduling.step
    assert [step.model_name for step in steps] == [stage.name for stage in ensemble.steps]
    order = list(STAGES)
    assert list(ensemble.stages) == sorted(ensemble.stages, key=order.index)
    called = {name: STAGES[name].called_by for name in ensemble.stages}
    assert all(caller is None or caller in ensemble.stages for caller in called.values())


@pytest.mark.parametrize("ensemble", ENSEMBLES.values(), ids=ENSEMBLES)
def test_the_report_passes_through_the_stages_that_report_in_order(ensemble) -> None:
    wired = {
        step.model_name: (step.input_map.get("report"), step.output_map.get("report"))
        for step in config(ensemble.name).ensemble_scheduling.step
    }
    reporting = [stage.name for stage in ensemble.steps if stage.reports]
    for before, after in pairwise(reporting):
        assert wired[after][0] == wired[before][1], f"{before} → {after}"
    assert all(pair in pairwise(reporting) for pair in ensemble.gaps)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_no_two_stages_run_at_a_time(name: str) -> None:
    """Triton 2.51 can die of a stage that fails while another runs."""
    steps = config(name).ensemble_scheduling.step
    for before, after in pairwise(steps):
        awaited = set(before.output_map.values()) & set(after.input_map.values())
        assert awaited, f"{after.model_name} does not wait for {before.model_name}"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of docs/architecture.md."""
    section = (ROOT / "docs" / "architecture.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_documented_stages_are_those_of_the_pipeline() -> None:
    table = rows("Stages")
    assert [quoted(row[0]) for row in table] == [[name] for name in STAGES]
    for (_, inputs, outputs, runs_on), name in zip(table, STAGES, strict=True):
        parsed = config(name)
        assert sorted(quoted(inputs)) == sorted(tensors(parsed.input)), name
        assert sorted(quoted(outputs)) == sorted(tensors(parsed.output)), name
        assert runs_on.startswith("TensorRT" if STAGES[name].network else "Python"), name


def test_the_documented_profiles_are_those_of_the_pipeline() -> None:
    assert [row[0].strip("`") for row in rows("Profiles")] == list(PROFILES)


def test_triton_is_imported_at_one_door() -> None:
    """Only serving/ and model.py files may know Triton's Python backend."""
    source = MODELS.parent / "src" / "cosmos_triton"
    importing = {
        path.relative_to(source).parts[0]
        for path in source.rglob("*.py")
        if re.search(r"^\s*import triton_python_backend_utils", path.read_text(), re.MULTILINE)
    }
    assert importing == {"serving"}
