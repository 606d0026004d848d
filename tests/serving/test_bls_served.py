"""One stage calls another through a real Triton; the called one answers in the memory of its device."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from cosmos_triton.server.installation import assemble_backends, find_installation
from cosmos_triton.server.launch import free_ports

CALLER = """
from cosmos_triton.serving.bls import call
from cosmos_triton.serving.failures import error_response
from cosmos_triton.serving.tensors import read_inputs, response


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        try:
            return response({"predictions": call("diffusion_denoiser", read_inputs(request), "predictions")})
        except Exception as error:
            return error_response(error, "caller")
"""

CALLED = """
import torch
from cosmos_triton.serving.tensors import read_inputs, response


class TritonPythonModel:
    def initialize(self, args):
        self.device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"

    def execute(self, requests):
        latents = [torch.from_numpy(read_inputs(request)["latents"]) for request in requests]
        doubled = [value.to(self.device) * 2 for value in latents]
        if self.device == "cuda":
            torch.cuda.synchronize()
        return [response({"predictions": value}) for value in doubled]
"""

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "latents" data_type: TYPE_FP32 dims: [ -1, -1 ] }} ]
output [ {{ name: "predictions" data_type: TYPE_FP32 dims: [ -1, -1 ] }} ]
instance_group [ {{ kind: {kind} count: 1 }} ]
"""


def write_model(repository: Path, name: str, code: str, kind: str) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name, kind=kind))


@contextmanager
def serving(folder: Path, called_on: str) -> Iterator[triton.InferenceServerClient]:
    """A client of a server with the models `caller`, on the host, and `diffusion_denoiser`."""
    write_model(folder / "models", "caller", CALLER, "KIND_CPU")
    write_model(folder / "models", "diffusion_denoiser", CALLED, called_on)
    installation, (http, grpc, metrics) = find_installation(), free_ports(3)
    arguments = [
        str(installation.binary),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={assemble_backends(installation, folder / 'backends')}",
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        "--exit-timeout-secs=5",
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": installation.library_path,
    }
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        with triton.InferenceServerClient(f"127.0.0.1:{grpc}") as client:
            wait_until_ready(client, process, log)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(client: triton.InferenceServerClient, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        try:
            if client.is_server_ready():
                return
        except InferenceServerException:  # it does not listen yet
            pass
        time.sleep(0.2)


@pytest.mark.triton
@pytest.mark.parametrize("called_on", ["KIND_CPU", pytest.param("KIND_GPU", marks=pytest.mark.gpu)])
def test_the_answer_of_another_stage_arrives_wherever_it_was_made(tmp_path: Path, called_on: str) -> None:
    latents = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
    given = triton.InferInput("latents", list(latents.shape), "FP32")
    given.set_data_from_numpy(latents)
    with serving(tmp_path, called_on) as client:
        for _ in range(3):
            answer = client.infer("caller", [given], client_timeout=60)
            assert np.array_equal(answer.as_numpy("predictions"), latents * 2)
