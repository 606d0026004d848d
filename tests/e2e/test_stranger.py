"""What a stranger on the ports can do: ask the public ensembles, and for health; nothing else."""

import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages

from cosmos_client import CosmosClient
from cosmos_triton.pipeline import ENSEMBLES, STAGES
from support.supervised import Supervised, supervised

pytestmark = pytest.mark.triton

FAST = "cosmos_base_fast"
SERVICE = "/inference.GRPCInferenceService/"
METHODS = [method.name for method in messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
PUBLIC = {"ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer"}
KEY = "open sesame"


@pytest.fixture(scope="module")
def server(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "key").write_text(KEY + "\n")
    with supervised(
        checkpoints, folder, f"--ensemble={FAST}", f"--admin-key-file={folder / 'key'}"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Supervised) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


def call(channel: grpc.Channel, method: str, body: bytes = b"", **metadata: str) -> bytes:
    headers = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    return bytes(channel.unary_unary(method)(body, timeout=20, metadata=headers))


def refusal(channel: grpc.Channel, method: str, body: bytes = b"", **metadata: str) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, method, body, **metadata)
    return refused.value.code()


def web(server: Supervised, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, content


@pytest.mark.parametrize("method", [name for name in METHODS if name not in PUBLIC])
def test_every_other_call_is_refused(channel: grpc.Channel, method: str) -> None:
    assert refusal(channel, SERVICE + method) == grpc.StatusCode.PERMISSION_DENIED
    assert refusal(channel, SERVICE + method, cosmos_admin_key="guess") == grpc.StatusCode.PERMISSION_DENIED
    triton_key = {"triton-grpc-protocol-cosmos-key": "guess"}
    assert refusal(channel, SERVICE + method, **triton_key) == grpc.StatusCode.PERMISSION_DENIED


def test_other_services_are_refused(channel: grpc.Channel) -> None:
    for method in ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/ModelInfer", "/"):
        assert refusal(channel, method) == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_stage_can_be_reached(server: Supervised, channel: grpc.Channel, stage: str) -> None:
    not_found = grpc.StatusCode.NOT_FOUND
    request = messages.ModelInferRequest(model_name=stage).SerializeToString()
    assert refusal(channel, SERVICE + "ModelInfer", request) == not_found
    public = messages.ModelInferRequest(model_name=FAST).SerializeToString()
    assert refusal(channel, SERVICE + "ModelInfer", public + request) == not_found  # the last name counts
    named = messages.ModelMetadataRequest(name=stage).SerializeToString()
    assert refusal(channel, SERVICE + "ModelMetadata", named) == not_found
    assert not messages.ModelReadyResponse.FromString(call(channel, SERVICE + "ModelReady", named)).ready
    for path in (
        f"/v2/models/{stage}",
        f"/v2/models/{stage}/ready",
        f"/v2/models/cosmos_base_fast%2F..%2F{stage}",
    ):
        assert web(server, "GET", path)[0] in (403, 404)
    for path in (
        f"/v2/models/{stage}/infer",
        f"/v2/models/{FAST}/../{stage}/infer",
        f"/v2//models/{stage}/infer",
    ):
        assert web(server, "POST", path, b"{}")[0] in (400, 403, 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/stranger/load"),
        ("POST", "/v2/repository/models/ar_sampler/unload"),
        ("GET", f"/v2/models/{FAST}/config"),
        ("GET", f"/v2/models/{FAST}/stats"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
        ("POST", f"/v2/models/{FAST}/generate"),
        ("PUT", "/v2/health/live"),
        ("GET", "/metrics"),
        ("GET", "/"),
    ],
)
def test_administration_over_http_is_refused(server: Supervised, method: str, path: str) -> None:
    body = json.dumps({"parameters": {"config": "{}", "file:1/model.py": "cHJpbnQoMSk="}}).encode()
    assert web(server, method, path, body)[0] in (403, 404, 405)
    assert web(server, method, path, body, cosmos_key="guess")[0] in (403, 404, 405)


def test_the_operators_key_opens_it(server: Supervised, channel: grpc.Channel) -> None:
    index = call(channel, SERVICE + "RepositoryIndex", cosmos_admin_key=KEY)
    names = {model.name for model in messages.RepositoryIndexResponse.FromString(index).models}
    assert {FAST, "ar_sampler"} <= names
    status, config = web(server, "GET", "/v2/models/ar_sampler/config", cosmos_admin_key=KEY)
    assert (status, config["name"]) == (200, "ar_sampler")


def test_a_forged_message_is_told_so(channel: grpc.Channel) -> None:
    for body in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x1a\x01\xff"):
        assert refusal(channel, SERVICE + "ModelInfer", body) == grpc.StatusCode.INVALID_ARGUMENT
    endless = messages.ModelInferRequest(model_name=FAST, id="x" * 1000).SerializeToString()
    assert refusal(channel, SERVICE + "ModelInfer", endless) == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"[" * 100_000, {}),
        (b'{"id": 7}', {}),
        (b"{}", {"Inference_Header_Content_Length": "-1"}),
        (b"{}", {"Inference_Header_Content_Length": "99999999999999999999"}),
    ],
)
def test_http_bodies_that_are_no_requests(server: Supervised, body: bytes, headers: dict[str, str]) -> None:
    status, told = web(server, "POST", f"/v2/models/{FAST}/infer", body, **headers)
    assert status == 400, told


def test_compressed_bodies_are_not_unpacked(server: Supervised) -> None:
    bomb = gzip.compress(bytes(300 * 2**20), compresslevel=1)
    before = resident_mb(server)
    for _ in range(3):
        assert web(server, "POST", f"/v2/models/{FAST}/infer", bomb, Content_Encoding="gzip")[0] == 415
    assert resident_mb(server) - before < 100


def test_a_body_past_the_bound_is_cut_off(server: Supervised) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=20)
    connection.putrequest("POST", f"/v2/models/{FAST}/infer")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    connection.send(b"x" * 1000)
    assert connection.getresponse().status == 413
    connection.close()


def resident_mb(server: Supervised) -> float:
    pids = [server.process.pid, *server.descendants()]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20 for pid in pids)


def test_those_who_ask_as_they_should_are_answered(
    server: Supervised, channel: grpc.Channel, clip: bytes
) -> None:
    assert messages.ServerReadyResponse.FromString(call(channel, SERVICE + "ServerReady")).ready
    assert web(server, "GET", "/v2/health/ready")[0] == 200
    assert web(server, "GET", f"/v2/models/{FAST}")[1]["name"] == FAST
    with CosmosClient(server.grpc_url, timeout_s=120) as client:
        status = client.status()
        assert [model.name for model in status.models if model.ready] == [FAST]
        assert {model.name for model in status.models} == set(ENSEMBLES)
        expected = client.generate(clip, model=FAST, seed=3, request_id="mine")
    header = json.dumps(
        {
            "id": "mine",
            "inputs": [
                {
                    "name": "media",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": len(clip) + 4},
                },
                {"name": "seed", "datatype": "INT64", "shape": [1], "data": [3]},
            ],
            "outputs": [{"name": "tokens"}],
        }
    ).encode()
    body = header + len(clip).to_bytes(4, "little") + clip
    status_code, told = web(
        server, "POST", f"/v2/models/{FAST}/infer", body, Inference_Header_Content_Length=str(len(header))
    )
    assert (status_code, told["id"]) == (200, "mine")
    np.testing.assert_array_equal(np.ravel(expected.tokens), told["outputs"][0]["data"])
