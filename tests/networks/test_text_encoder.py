import torch
from transformers import T5Config, T5EncoderModel

from cosmos_triton.architectures import TEXT_ENCODERS
from cosmos_triton.checkpoints.published import text_encoder_shapes
from cosmos_triton.networks.text_encoder import load_text_encoder

TINY = TEXT_ENCODERS["tiny"]


@torch.no_grad()
def test_equals_transformers_and_is_zero_past_the_prompt() -> None:
    config = T5Config(
        vocab_size=TINY.vocabulary,
        d_model=TINY.dim,
        d_kv=TINY.head_dim,
        d_ff=TINY.ffn_dim,
        num_layers=TINY.layers,
        num_heads=TINY.heads,
        relative_attention_num_buckets=TINY.relative_buckets,
        feed_forward_proj="relu",
    )
    reference = T5EncoderModel(config).eval()
    encoder = load_text_encoder(TINY, reference.state_dict())
    ids = torch.randint(1, TINY.vocabulary, (512,), dtype=torch.int32)
    mask = (torch.arange(512) < 20).int()
    hidden = reference(input_ids=ids[None], attention_mask=mask[None]).last_hidden_state[0]
    embeddings = encoder(ids, mask)
    assert embeddings.shape == (512, TINY.dim)
    torch.testing.assert_close(embeddings[:20], hidden[:20], atol=1e-6, rtol=0)
    assert not embeddings[20:].any()


def test_every_published_name_of_the_real_encoder_has_a_place() -> None:
    architecture = TEXT_ENCODERS["t5-11b"]
    tensors = {
        name: torch.empty(shape, device="meta") for name, shape in text_encoder_shapes(architecture).items()
    }
    encoder = load_text_encoder(architecture, tensors)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_864_791_552
