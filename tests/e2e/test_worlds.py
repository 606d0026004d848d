"""Clips go through a real tritonserver and come back as worlds."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import tritonclient.http as http
from PIL import Image

from cosmos_client import CosmosClient
from cosmos_triton.pipeline import ENSEMBLES
from cosmos_triton.server.launch import Server

pytestmark = pytest.mark.triton

PROMPT = "A red ball rolls across a wooden table."


def frames_of(video: bytes) -> np.ndarray:
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def prompt_for(ensemble: str) -> str | None:
    return PROMPT if "video2world" in ensemble else None


def picture() -> bytes:
    stream = io.BytesIO()
    ramp = np.linspace(0, 255, 300 * 400 * 3).astype(np.uint8).reshape(300, 400, 3)
    Image.fromarray(ramp).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_clip_becomes_a_world(client: CosmosClient, clip: bytes, ensemble: str) -> None:
    world = client.generate(clip, model=ensemble, prompt=prompt_for(ensemble), seed=7, want_frames=True)
    assert world.tokens.shape == (5, 10, 16)
    assert world.tokens.min() >= 0
    assert world.tokens.max() < 64000
    assert world.frames is not None
    assert world.frames.shape == (33, 160, 256, 3)
    assert world.frames.std() > 1, "a world of one colour"
    seen = frames_of(world.video)
    assert seen.shape == world.frames.shape
    # H.264 with 4:2:0 chroma is lossy; on random-weight video it stays within this.
    assert np.abs(seen.astype(int) - world.frames.astype(int)).mean() < 40


def test_the_report_says_what_was_done(client: CosmosClient, clip: bytes) -> None:
    report = client.generate(clip, prompt=PROMPT, seed=3, top_p=0.5).report
    assert report["model"] == "tiny-video2world"
    assert (report["seed"], report["top_p"], report["temperature"]) == (3, 0.5, 1.0)
    assert report["input"]["kind"] == "video"
    assert report["input"]["used_frames"] == 9
    assert report["notes"] == []
    assert report["autoregressive"]["tokens"] == 3 * 160
    assert set(report["guardrails"]) == {"prompt", "video"}
    assert report["guardrails"]["prompt"]["posture"] == "built-in"
    stages = report["seconds"]
    assert list(stages) == [
        "media_decoder",
        "video_encoder",
        "prompt_guardrail",
        "text_encoder",
        "ar_sampler",
        "diffusion_decoder",
        "latent_decoder",
        "video_guardrail",
        "media_encoder",
        "total",
    ]
    assert all(seconds >= 0 for seconds in stages.values())
    parts = sum(seconds for stage, seconds in stages.items() if stage != "total")
    assert stages["total"] == pytest.approx(parts, rel=0.3)


def test_context_tokens_are_kept_and_depend_on_the_input_alone(client: CosmosClient, clip: bytes) -> None:
    nine = client.generate(clip, model="cosmos_base_fast", seed=1)
    other_seed = client.generate(clip, model="cosmos_base_fast", seed=2)
    assert np.array_equal(nine.tokens[:2], other_seed.tokens[:2])
    assert not np.array_equal(nine.tokens[2:], other_seed.tokens[2:])


def test_an_image_gives_one_latent_of_context(client: CosmosClient) -> None:
    world = client.generate(picture(), model="cosmos_base_fast")
    assert world.report["input"]["kind"] == "image"
    assert world.report["input"]["used_frames"] == 1
    assert world.report["autoregressive"]["tokens"] == 4 * 160


def test_recommended_values_are_the_default(client: CosmosClient, clip: bytes) -> None:
    report = client.generate(clip, model="cosmos_base_fast").report
    assert (report["seed"], report["temperature"], report["top_p"]) == (0, 1.0, 0.8)


def test_eight_at_once_equal_each_alone(client: CosmosClient, clip: bytes) -> None:
    """In one batch, next to other seeds, a seed's tokens are what they are alone."""
    alone = [client.generate(clip, model="cosmos_base_fast", seed=seed).tokens for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda seed: client.generate(clip, model="cosmos_base_fast", seed=seed).tokens, range(8))
        )
    for seed in range(8):
        assert np.array_equal(alone[seed], together[seed]), f"seed {seed}"
    assert len({tokens.tobytes() for tokens in together}) == 8


def test_http_answers_the_same_tensors(server: Server, client: CosmosClient, clip: bytes) -> None:
    media = http.InferInput("media", [1], "BYTES")
    media.set_data_from_numpy(np.array([clip], dtype=np.object_))
    seed = http.InferInput("seed", [1], "INT64")
    seed.set_data_from_numpy(np.array([7], dtype=np.int64))
    with http.InferenceServerClient(server.http_url, network_timeout=120, connection_timeout=120) as plain:
        answer = plain.infer("cosmos_base_fast", [media, seed])
    assert json.loads(answer.as_numpy("report")[0])["seed"] == 7
    expected = client.generate(clip, model="cosmos_base_fast", seed=7, want_frames=True)
    assert np.array_equal(answer.as_numpy("tokens"), expected.tokens)
    assert np.array_equal(answer.as_numpy("frames"), expected.frames)
    assert answer.as_numpy("video")[0] == expected.video
