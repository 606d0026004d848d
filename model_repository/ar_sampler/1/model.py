"""ar_sampler: context tokens in; a whole world of tokens out, or, by `cancel_id`, a request withdrawn."""

from cosmos_triton.serving import DeferredModel, Sampler


class TritonPythonModel(DeferredModel):
    stage = Sampler.start
