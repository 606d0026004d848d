"""Attention whose scale survives half precision."""

import torch.nn.functional as F
from torch import Tensor


def scaled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, [B, N, L, D] each -> [B, N, L, D].

    The scale is applied to the query in float32. Left to the exporter it becomes a constant of the
    graph's type, D^-1/4 on either side: in bfloat16 that is off by up to 0.4 %, the same way for
    every logit.

    Args:
        query, key, value: of one floating type.
        mask: boolean, true where attention is allowed; broadcast against [B, N, L, L].
    """
    scaled = (query.float() * query.shape[-1] ** -0.5).to(query.dtype)
    return F.scaled_dot_product_attention(scaled, key, value, attn_mask=mask, scale=1.0)
