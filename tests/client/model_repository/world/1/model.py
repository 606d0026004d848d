"""A peer for tests of the client: its answer depends on the first word of the media.

    ok [SECONDS]     a world, after a while
    hang             no answer until the request is cancelled (at most 20 s)
    CODE MESSAGE     a Triton error: INVALID_ARG, UNAVAILABLE, INTERNAL, CANCELLED
    no-report        a report that is not JSON
    no-video         an empty video
    float-tokens     tokens of the wrong type

The report tells what arrived. Files in $COSMOS_PEER_RECORDS, named after request ids, tell what
happens: `ID.started` when a request arrives, `ID.cancel` (written by ar_sampler) when it is
cancelled, `ID.ended` when it has been answered.
"""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

_OPTIONS = ("prompt", "num_input_frames", "seed", "temperature", "top_p")
_HANG_LIMIT_S = 20.0


class TritonPythonModel:
    def initialize(self, args):
        self.records = Path(os.environ["COSMOS_PEER_RECORDS"])
        self.lock = threading.Lock()
        self.in_flight = 0

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request, request.get_response_sender())).start()

    def answer(self, request, sender):
        record = self.records / request.request_id()
        with self.lock:
            self.in_flight += 1
            in_flight = self.in_flight
        record.with_suffix(".started").touch()
        try:
            response = self.respond(request, record, in_flight)
        except pb_utils.TritonModelException as error:
            response = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        finally:
            with self.lock:
                self.in_flight -= 1
        record.with_suffix(".ended").touch()
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def respond(self, request, record, in_flight):
        media = _value(request, "media")
        word, _, rest = media.decode().partition(" ")
        if word == "hang":
            deadline = time.monotonic() + _HANG_LIMIT_S
            while time.monotonic() < deadline and not record.with_suffix(".cancel").exists():
                time.sleep(0.02)
            word, rest = "CANCELLED", "the request was cancelled"
        if word.isupper():
            code = getattr(pb_utils.TritonError, word)
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(rest, code))
        if word == "ok" and rest:
            time.sleep(float(rest))
        report = {
            "media": media.decode(),
            "request_id": request.request_id(),
            "timeout_us": request.timeout(),
            "outputs": sorted(request.requested_output_names()),
            "in_flight": in_flight,
        } | {name: _value(request, name) for name in _OPTIONS}
        report["seed"] = report["seed"] or 0
        return pb_utils.InferenceResponse(
            [
                _bytes("video", b"" if word == "no-video" else b"\0video of " + media + b"\0"),
                pb_utils.Tensor("frames", np.full((33, 32, 48, 3), 200, np.uint8)),
                pb_utils.Tensor("tokens", _tokens(report["seed"], word)),
                _bytes("report", b"{" if word == "no-report" else json.dumps(report).encode()),
            ]
        )


def _tokens(seed, word):
    dtype = np.float32 if word == "float-tokens" else np.int32
    return (np.arange(5 * 2 * 3).reshape(5, 2, 3) + seed % 1000).astype(dtype)


def _bytes(name, value):
    return pb_utils.Tensor(name, np.array([value], dtype=np.object_))


def _value(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    value = tensor.as_numpy()[0]
    if isinstance(value, bytes):
        return value if name == "media" else value.decode()
    return value.item()
