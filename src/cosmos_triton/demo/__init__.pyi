from .random_weights import write_tokenizer as write_tokenizer
from .random_weights import write_torchscript as write_torchscript
from .sample_clip import synthetic_clip as synthetic_clip
from .sheet import contact_sheet as contact_sheet
