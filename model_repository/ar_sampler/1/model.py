"""ar_sampler: context tokens in; a whole world of tokens out.

Many videos run in one batch of one engine. `execute` therefore answers nothing itself: it hands each
request and its response sender to the engine and returns, and the engine's thread answers when the
video is done. A request that carries `cancel_id` instead withdraws the request of that id.
"""

from cosmos_triton.serving.deferred import Reply
from cosmos_triton.serving.logs import log_to_triton
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.stages.autoregressive import Sampler
from cosmos_triton.serving.tensors import read_inputs


class TritonPythonModel:
    def initialize(self, args):
        log_to_triton(args["model_name"])
        self.sampler = Sampler(StageSettings.from_triton(args), Metrics())

    def execute(self, requests):
        for request in requests:
            reply = Reply(request, stage="ar_sampler")
            with reply.failing():
                self.sampler.submit(read_inputs(request), reply, request.request_id(), request.timeout())
        return None

    def finalize(self):
        self.sampler.close()
