"""Bad input gets INVALID_ARGUMENT and one sentence that names the value; the server goes on."""

import io

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from cosmos_client import CosmosClient, RequestRefused
from cosmos_triton.demo.sample_clip import synthetic_clip
from cosmos_triton.media import encode_mp4
from cosmos_triton.server.launch import Server

pytestmark = pytest.mark.triton

FAST = "cosmos_base_fast"


@pytest.fixture(autouse=True, scope="module")
def _the_server_still_answers(server: Server, clip: bytes):
    """After all bad requests of this file a good one is served."""
    yield
    with CosmosClient(server.grpc_url, timeout_s=120) as client:
        assert client.generate(clip, model=FAST).tokens.shape == (5, 10, 16)


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (b"no media at all, just text", "the media is .*; a png, jpeg, webp or mp4 file is taken"),
        (b"\x89PNG\r\n\x1a\n cut off", "the png image cannot be read"),
        (encode_mp4(synthetic_clip(frames=5)), "the video has 5 frames, 9 input frames are needed"),
        (encode_mp4(synthetic_clip())[:3000], "the video has 0 frames, 9 input frames are needed"),
    ],
    ids=["text", "cut png", "five frames", "cut mp4"],
)
def test_media(client: CosmosClient, media: bytes, message: str) -> None:
    with pytest.raises(RequestRefused, match=message) as refused:
        client.generate(media, model=FAST)
    assert "/" not in str(refused.value).split("cosmos_base_fast")[-1], "a server path leaks"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature -1.0 is not a number from 0 up"),
        ({"temperature": float("nan")}, "temperature nan is not"),
        ({"temperature": float("inf")}, "temperature inf is not"),
        ({"top_p": 0.0}, "top_p 0.0 is not in"),
        ({"top_p": 1.5}, "top_p 1.5 is not in"),
        ({"top_p": float("nan")}, "top_p nan is not in"),
        ({"num_input_frames": 5}, "num_input_frames is 5"),
        ({"num_input_frames": 0}, "num_input_frames is 0"),
    ],
)
def test_parameters(client: CosmosClient, clip: bytes, values: dict[str, float], message: str) -> None:
    with pytest.raises(RequestRefused, match=message):
        client.generate(clip, model=FAST, **values)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "a prompt is needed"),
        ("   \n", "a prompt is needed"),
        ("word " * 2_000_000, "the prompt has 10000000 bytes, at most"),
    ],
    ids=["empty", "blank", "10 MB"],
)
def test_prompts(client: CosmosClient, clip: bytes, prompt: str, message: str) -> None:
    with pytest.raises(RequestRefused, match=message):
        client.generate(clip, model="cosmos_video2world_fast", prompt=prompt)


def test_many_refused_prompts_do_not_end_the_server(client: CosmosClient, clip: bytes) -> None:
    """A stage that failed while another ran ended Triton 2.51 after half a dozen of these (signal 11)."""
    for _ in range(20):
        with pytest.raises(RequestRefused, match="a prompt is needed"):
            client.generate(clip, model="cosmos_video2world_fast", prompt=" ")


def raw_request(server: Server, model: str, **tensors: np.ndarray) -> str:
    """Send tensors that the client library would not; returns the status and the message."""
    names = {np.dtype(object): "BYTES", np.dtype("int32"): "INT32", np.dtype("int64"): "INT64"}
    inputs = []
    for name, value in tensors.items():
        entry = triton.InferInput(name, list(value.shape), names[value.dtype])
        entry.set_data_from_numpy(value)
        inputs.append(entry)
    with (
        triton.InferenceServerClient(server.grpc_url) as plain,
        pytest.raises(InferenceServerException) as refused,
    ):
        plain.infer(model, inputs, client_timeout=60)
    return f"{refused.value.status()} {refused.value.message()}"


def one(value: bytes) -> np.ndarray:
    return np.array([value], dtype=np.object_)


def test_a_missing_prompt(server: Server, clip: bytes) -> None:
    told = raw_request(server, "cosmos_video2world_fast", media=one(clip))
    assert "INVALID_ARGUMENT" in told
    assert "prompt" in told


def test_invalid_utf8(server: Server, clip: bytes) -> None:
    told = raw_request(server, "cosmos_video2world_fast", media=one(clip), prompt=one(b"caf\xe9 \xff"))
    assert "INVALID_ARGUMENT" in told
    assert "UTF-8" in told


def test_empty_media(server: Server) -> None:
    told = raw_request(server, FAST, media=one(b""))
    assert "INVALID_ARGUMENT" in told
    assert "empty" in told


def test_no_input_at_all(server: Server) -> None:
    assert "INVALID_ARGUMENT" in raw_request(server, FAST)


def picture(mode: str, format: str, size: tuple[int, int] = (301, 203)) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(stream, format=format)
    return stream.getvalue()


@pytest.mark.parametrize(
    "media",
    [
        picture("RGBA", "PNG"),
        picture("CMYK", "JPEG"),
        picture("I;16", "PNG"),
        picture("L", "WEBP"),
        picture("1", "PNG", (1, 7)),
    ],
    ids=["RGBA", "CMYK", "16 bit", "webp", "one pixel wide"],
)
def test_unusual_pictures_are_fine(client: CosmosClient, media: bytes) -> None:
    assert client.generate(media, model=FAST).report["input"]["kind"] == "image"


def test_neighbours_in_the_batch_go_on(client: CosmosClient, clip: bytes) -> None:
    from concurrent.futures import ThreadPoolExecutor

    alone = client.generate(clip, model=FAST, seed=5).tokens
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(client.generate, clip, model=FAST, seed=5) for _ in range(2)]
        bad = [pool.submit(client.generate, clip, model=FAST, temperature=-1.0) for _ in range(2)]
        for future in bad:
            with pytest.raises(RequestRefused):
                future.result()
        for future in good:
            assert np.array_equal(future.result().tokens, alone)
