"""What a client may send to a stage itself: bad input is INVALID_ARGUMENT, found before any work."""

import json
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from cosmos_client import CosmosClient
from cosmos_triton.server.launch import Server

pytestmark = pytest.mark.triton

FRAMES = np.zeros((33, 160, 256, 3), np.uint8)
TOKENS = np.zeros((5, 10, 16), np.int32)
CONTEXT = np.zeros((2, 10, 16), np.int32)
IDS = np.zeros(512, np.int32)
LATENTS = np.zeros((16, 5, 20, 32), np.float32)


@pytest.fixture(scope="module")
def plain(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def text(value: bytes) -> np.ndarray:
    return np.array([value], dtype=np.object_)


def ask(
    plain: triton.InferenceServerClient, model: str, outputs: list[str] | None = None, **tensors: np.ndarray
) -> triton.InferResult:
    inputs = []
    for name, value in tensors.items():
        entry = triton.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        entry.set_data_from_numpy(value)
        inputs.append(entry)
    wanted = None if outputs is None else [triton.InferRequestedOutput(name) for name in outputs]
    return plain.infer(model, inputs, outputs=wanted, client_timeout=60)


def refusal(plain: triton.InferenceServerClient, model: str, **tensors: np.ndarray) -> str:
    with pytest.raises(InferenceServerException) as refused:
        ask(plain, model, **tensors)
    assert "INVALID_ARGUMENT" in str(refused.value.status()), refused.value.message()
    return refused.value.message()


REPORTS = [
    b"",
    b"no json",
    b"[]",
    b"null",
    b'{"model":"\\ud800","_timeline":[["a",0,1]]}',
    b'{"_timeline":"abc"}',
    b'{"_timeline":[["a",0,1e999]]}',
    b'{"_timeline":[["a",0,' + b"9" * 400 + b"]]}",
    b'{"note":"' + b"x" * 1_000_000 + b'"}',
]


@pytest.mark.parametrize("raw", REPORTS, ids=range(len(REPORTS)))
@pytest.mark.parametrize(
    ("model", "tensors"),
    [
        ("ar_sampler", {"context_tokens": CONTEXT}),
        ("diffusion_decoder", {"tokens": TOKENS}),
        ("prompt_guardrail", {"prompt": text(b"a street")}),
        ("video_guardrail", {"frames": FRAMES}),
        ("media_encoder", {"frames": FRAMES, "tokens": TOKENS}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_forged_report(
    plain: triton.InferenceServerClient, model: str, tensors: dict[str, np.ndarray], raw: bytes
) -> None:
    began = time.monotonic()
    assert "report" in refusal(plain, model, report=text(raw), **tensors)
    assert time.monotonic() - began < 2, "the report was read after the work"


@pytest.mark.parametrize("model", [b"123", b'"nobody"', b'"' + b"m" * 50_000 + b'"'])
def test_a_report_with_another_model_does_not_end_the_server_or_make_a_label(
    plain: triton.InferenceServerClient, server: Server, model: bytes
) -> None:
    raw = b'{"model":' + model + b',"_timeline":[["stranger",0,1]]}'
    answer = ask(plain, "media_encoder", frames=FRAMES, tokens=TOKENS, report=text(raw))
    assert json.loads(answer.as_numpy("report")[0])["seconds"]["stranger"] == 1
    with urllib.request.urlopen(server.metrics_url, timeout=5) as metrics:
        published = metrics.read().decode()
    assert "stranger" not in published
    assert 'cosmos_stage_seconds_count{model="other",stage="other"}' in published


@pytest.mark.parametrize(
    ("model", "tensors", "message"),
    [
        ("ar_sampler", {"context_tokens": CONTEXT - 1}, "context token -1 is not in"),
        ("ar_sampler", {"context_tokens": CONTEXT + 64000}, "context token 64000 is not in"),
        ("ar_sampler", {"context_tokens": CONTEXT[:, :9]}, "context tokens have shape"),
        ("ar_sampler", {"context_tokens": CONTEXT[:, :, :0]}, "context tokens have shape"),
        *(
            (
                "ar_sampler",
                {"context_tokens": CONTEXT, "num_input_frames": np.array([frames], np.int32)},
                f"num_input_frames is {frames}, must be 1 or 9",
            )
            for frames in (0, 2, -7, 17, 33, 2**31 - 1)
        ),
        ("video_decoder", {"tokens": TOKENS - 1}, "tokens holds -1, which is not in 0..63999"),
        ("video_decoder", {"tokens": TOKENS + 64000}, "tokens holds 64000, which is not in 0..63999"),
        ("video_decoder", {"tokens": TOKENS[:, :9]}, "tokens has shape [5, 9, 16], not [5, 10, 16]"),
        ("video_decoder", {"tokens": TOKENS[:, :0]}, "tokens has shape [5, 0, 16], not [5, 10, 16]"),
        ("text_encoder", {"input_ids": IDS - 1, "attention_mask": IDS}, "input_ids holds -1"),
        ("text_encoder", {"input_ids": IDS, "attention_mask": IDS + 77}, "attention_mask holds 77"),
        ("diffusion_decoder", {"tokens": TOKENS - 1, "report": text(b"{}")}, "tokens holds -1"),
        (
            "diffusion_decoder",
            {"tokens": TOKENS[:, :9], "report": text(b"{}")},
            "tokens has shape [5, 9, 16]",
        ),
        (
            "diffusion_decoder",
            {
                "tokens": TOKENS,
                "report": text(b"{}"),
                "text_embeddings": np.full((512, 32), np.nan, np.float32),
            },
            "text_embeddings holds nan",
        ),
        ("latent_decoder", {"latents": LATENTS * np.float32(np.nan)}, "latents holds nan"),
        ("latent_decoder", {"latents": LATENTS[..., :31]}, "latents has shape [16, 5, 20, 31]"),
        ("video_encoder", {"frames": np.full((3, 9, 160, 256), np.inf, np.float32)}, "frames holds inf"),
        ("video_encoder", {"frames": np.zeros((3, 9, 160, 255), np.float32)}, "frames has shape"),
        ("video_guardrail", {"frames": FRAMES[:, :0], "report": text(b"{}")}, "frames are 0x256 pixels"),
        ("media_encoder", {"frames": FRAMES[:, :0], "tokens": TOKENS, "report": text(b"{}")}, "0x256 pixels"),
        ("media_encoder", {"frames": FRAMES[:, :9], "tokens": TOKENS, "report": text(b"{}")}, "9x256 pixels"),
        ("ar_sampler", {"cancel_id": text(b"")}, "cancel_id is empty"),
        ("ar_sampler", {"cancel_id": text(b"x" * 1000)}, "cancel_id has 1000 bytes; at most 128 are taken"),
    ],
)
def test_a_value_that_the_stage_cannot_take(
    plain: triton.InferenceServerClient, model: str, tensors: dict[str, np.ndarray], message: str
) -> None:
    assert message in refusal(plain, model, **tensors)


@pytest.mark.parametrize("outputs", [["tokens"], ["frames"], ["video"], ["report"], ["frames", "tokens"]])
@pytest.mark.parametrize("ensemble", ["cosmos_base", "cosmos_base_fast"])
def test_any_outputs_may_be_asked_for(
    plain: triton.InferenceServerClient, clip: bytes, ensemble: str, outputs: list[str]
) -> None:
    answer = ask(plain, ensemble, outputs, media=text(clip))
    assert {output.name for output in answer.get_response().outputs} == set(outputs)
    assert all(answer.as_numpy(name).size for name in outputs)


def test_the_server_still_answers(client: CosmosClient, clip: bytes) -> None:
    assert client.generate(clip, model="cosmos_base_fast").tokens.shape == (5, 10, 16)
