"""T5 v1.0 encoder: token ids to the text embeddings that condition both samplers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Stack

from cosmos_triton.architectures import TextEncoderArchitecture
from cosmos_triton.networks.loading import Renames, load, without

# The published file names the one embedding table twice; `shared` is the name that is always there.
_TIED = ("encoder.embed_tokens.",)
RENAMES: Renames = ((r"^shared\.", "encoder.embed_tokens."),)


class TextEncoder(nn.Module):
    """The `text_encoder` stage: one prompt, padded to 512 tokens.

    The attention mask is used inside the encoder; rows past the prompt are then set to exactly
    zero, which is what the models were trained on.
    """

    def __init__(self, architecture: TextEncoderArchitecture) -> None:
        super().__init__()
        self.encoder = T5Stack(
            T5Config(
                vocab_size=architecture.vocabulary,
                d_model=architecture.dim,
                d_kv=architecture.head_dim,
                d_ff=architecture.ffn_dim,
                num_layers=architecture.layers,
                num_heads=architecture.heads,
                relative_attention_num_buckets=architecture.relative_buckets,
                dropout_rate=0.0,
                feed_forward_proj="relu",
                is_encoder_decoder=False,
                use_cache=False,
            )
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[512] int32 ids and [512] int32 mask of 1s and 0s -> [512, C] float32."""
        hidden = self.encoder(
            input_ids=input_ids.unsqueeze(0), attention_mask=attention_mask.unsqueeze(0)
        ).last_hidden_state[0]
        return hidden.float() * attention_mask.unsqueeze(1).float()  # type: ignore[no-any-return]


def load_text_encoder(
    architecture: TextEncoderArchitecture, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> TextEncoder:
    """The encoder with its weights.

    Args:
        architecture: what to build.
        tensors: the encoder's tensors under transformers' names (`shared.*`, `encoder.*`).
        dtype: type of the weights; None keeps the checkpoint's.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    if "shared.weight" in tensors:
        tensors = without(tensors, _TIED)
    return load(
        lambda: TextEncoder(architecture),
        tensors,
        RENAMES,
        what=f"{architecture.name} text encoder",
        dtype=dtype,
    )
