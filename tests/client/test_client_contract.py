"""The client's names, and those of the peer that tests it, are the ones in the ensembles' config.pbtxt;
the sentences that it knows by their form are the ones that the server sends.
"""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from cosmos_client import BlockedByGuardrail
from cosmos_client._contract import (
    BLOCKED,
    CANCEL_INPUT,
    CANCEL_MODEL,
    DEADLINE_PASSED,
    ENSEMBLES,
    FRAMES_OUTPUT,
    INPUTS,
    OUTPUTS,
    QUEUE_FULL,
    STOPPING,
    TAKE_NO_PROMPT,
)
from cosmos_triton.errors import Blocked, DeadlineExceeded, Unavailable
from support.engines import request, running, submit

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


@pytest.mark.parametrize("reason", ["the words 'a (b): c' are on the list", "two\nlines"])
def test_a_guardrails_refusal_is_read_as_it_is_written(reason: str) -> None:
    sentence = str(Blocked("video_guardrail", "self_harm", reason))
    assert BLOCKED.fullmatch(sentence)
    error = BlockedByGuardrail(sentence)
    assert (error.stage, error.category, error.reason) == ("video_guardrail", "self_harm", reason)
    assert str(error) == sentence


def test_the_engines_sentences_are_known_by_their_form() -> None:
    with running(max_videos=1, max_queue=1) as engine:
        overdue = submit(engine, request(0, latents=1, deadline_s=0.01)).any()
        assert isinstance(overdue, DeadlineExceeded)
        assert DEADLINE_PASSED.match(str(overdue))
        running_ones = [submit(engine, request(seed, latents=1)) for seed in (1, 2)]
        with pytest.raises(Unavailable) as full:
            submit(engine, request(3))
        assert QUEUE_FULL.match(str(full.value))
    for outcome in running_ones:  # the engine has stopped
        assert STOPPING.match(str(outcome.any()))
