"""text_tokenizer: a prompt in; 512 T5 token ids and their mask out."""

from cosmos_triton.serving.adapter import StageModel
from cosmos_triton.serving.stages.text import TextTokenizer


class TritonPythonModel(StageModel):
    stage = TextTokenizer
    reports = False
