"""ar_sampler: context tokens in; a whole world of tokens out, or, by `cancel_id`, a request withdrawn."""

from cosmos_triton.serving.deferred import DeferredModel
from cosmos_triton.serving.stages.autoregressive import Sampler


class TritonPythonModel(DeferredModel):
    stage = Sampler.start
