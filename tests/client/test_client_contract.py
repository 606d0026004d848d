"""The client's names, and those of the peer that tests it, are the ones in the ensembles' config.pbtxt."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from cosmos_client._contract import (
    CANCEL_INPUT,
    CANCEL_MODEL,
    ENSEMBLES,
    FRAMES_OUTPUT,
    INPUTS,
    OUTPUTS,
    STAGES,
    TAKE_NO_PROMPT,
)

PEER = Path(__file__).parent / "model_repository"


def config(model: Path) -> Any:
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def tensors(entries: Any) -> dict[str, str]:
    types = {"TYPE_STRING": "BYTES"} | {f"TYPE_{name}": name for name in ("INT32", "INT64", "FP32", "UINT8")}
    return {entry.name: types[model_config_pb2.DataType.Name(entry.data_type)] for entry in entries}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_each_ensemble_takes_and_gives_what_the_client_says(name: str, repository: Path) -> None:
    ensemble = config(repository / "model_repository" / name)
    expected = {key: kind for key, kind in INPUTS.items() if key != "prompt" or "video2world" in name}
    assert tensors(ensemble.input) == expected
    assert tensors(ensemble.output) == OUTPUTS | FRAMES_OUTPUT


def test_what_is_no_ensemble_is_a_stage(repository: Path) -> None:
    models = {path.parent.name for path in (repository / "model_repository").glob("*/config.pbtxt")}
    assert models == {*ENSEMBLES, *STAGES}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_ensembles_without_a_prompt(name: str, repository: Path) -> None:
    takes_one = "prompt" in tensors(config(repository / "model_repository" / name).input)
    assert takes_one != (name in TAKE_NO_PROMPT)


@pytest.mark.parametrize("name", ["cosmos_base", "cosmos_base_fast", "cosmos_video2world"])
def test_the_peer_has_the_contract_of_the_real_ensemble(name: str, repository: Path) -> None:
    real, peer = config(repository / "model_repository" / name), config(PEER / name)
    assert list(peer.input) == list(real.input)
    assert list(peer.output) == list(real.output)


def test_the_engine_has_the_side_channel(repository: Path) -> None:
    engine = config(repository / "model_repository" / CANCEL_MODEL)
    assert tensors(engine.input)[CANCEL_INPUT] == "BYTES"
    assert all(entry.optional for entry in engine.input)
