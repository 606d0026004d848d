"""Records each cancelled id as the file `ID.cancel` in $COSMOS_PEER_RECORDS."""

import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.records = Path(os.environ["COSMOS_PEER_RECORDS"])

    def execute(self, requests):
        return [self.cancel(request) for request in requests]

    def cancel(self, request):
        cancel_id = pb_utils.get_input_tensor_by_name(request, "cancel_id").as_numpy()[0].decode()
        (self.records / f"{cancel_id}.cancel").touch()
        return pb_utils.InferenceResponse([pb_utils.Tensor("report", np.array([b"{}"], dtype=np.object_))])
