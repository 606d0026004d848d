"""text_tokenizer: a prompt in; 512 T5 token ids and their mask out."""

from cosmos_triton.serving import StageModel, TextTokenizer


class TritonPythonModel(StageModel):
    stage = TextTokenizer
    reports = False
