"""The diffusion decoder's network: denoises latents, conditioned on video tokens and text.

The transformer is diffusers' CosmosTransformer3DModel. What the published network adds to it is
done here: embedding the tokens, bringing them to the latent grid, and the padding mask. Text is
never masked: rows past the prompt are zero and take part in the softmax, as in training.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor, nn

from cosmos_triton.architectures import DiffusionDecoderArchitecture
from cosmos_triton.networks import Renames, load, scaled_attention

CONDITIONING_FPS = 24.0  # what the published pipeline always passes, whatever rate it saves at
_QK_NORM_EPS = 1e-6  # diffusers builds these norms with 1e-5
_MAX_SIZE = (128, 240, 240)  # latent frames, rows, columns the rotary embedding allows for
_ROPE_SCALE = (1.0, 1.5, 1.5)
_PATCH = (1, 2, 2)

RENAMES: Renames = (
    (r"^net\.token_embedder\.", "token_embedder."),
    (r"^net\.", "transformer."),
    (r"\.x_embedder\.proj\.1\.", ".patch_embed.proj."),
    (r"\.t_embedder\.1\.", ".time_embed.t_embedder."),
    (r"\.affline_norm\.", ".time_embed.norm."),
    (r"\.blocks\.block(\d+)\.blocks\.", r".transformer_blocks.\1."),
    (r"\.final_layer\.linear\.", ".proj_out."),
    (r"\.final_layer\.adaLN_modulation\.", ".norm_out.linear_"),
    (r"(transformer_blocks\.\d+)\.0\.adaLN_modulation\.", r"\1.norm1.linear_"),
    (r"(transformer_blocks\.\d+)\.1\.adaLN_modulation\.", r"\1.norm2.linear_"),
    (r"(transformer_blocks\.\d+)\.2\.adaLN_modulation\.", r"\1.norm3.linear_"),
    # adaLN_modulation is [SiLU, down, up]: its entries 1 and 2 are linear_1 and linear_2.
    (r"(transformer_blocks\.\d+)\.0\.block\.attn\.", r"\1.attn1."),
    (r"(transformer_blocks\.\d+)\.1\.block\.attn\.", r"\1.attn2."),
    (r"\.to_(q|k)\.1\.", r".norm_\1."),
    (r"\.to_(q|k|v)\.0\.", r".to_\1."),
    (r"(transformer_blocks\.\d+)\.2\.block\.layer1\.", r"\1.ff.net.0.proj."),
    (r"(transformer_blocks\.\d+)\.2\.block\.layer2\.", r"\1.ff.net.2."),
)


class SelfOrCrossAttention:
    """The attention of diffusers' blocks, without grouped heads and with an exact scale."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        # [B, L, N D] -> [B, N, L, D]
        query, key, value = (
            projected.reshape(*projected.shape[:2], attn.heads, -1).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        query, key = attn.norm_q(query), attn.norm_k(key)  # type: ignore[misc]
        if image_rotary_emb is not None:
            query, key = (
                apply_rotary_emb(tensor, image_rotary_emb, use_real=True, use_real_unbind_dim=-2)  # type: ignore[arg-type]
                for tensor in (query, key)
            )
        attended = scaled_attention(query, key, value, attention_mask)
        output: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))  # [B, N, L, D] -> [B, L, N D]
        return output


class DiffusionTransformer(nn.Module):
    """One evaluation of the network, batched; output in the dtype of the weights."""

    def __init__(self, architecture: DiffusionDecoderArchitecture) -> None:
        super().__init__()
        self.token_embedder = nn.Embedding(architecture.vocabulary, architecture.token_dim)
        self.transformer = CosmosTransformer3DModel(
            in_channels=architecture.latent_channels + architecture.token_dim + 1,
            out_channels=architecture.latent_channels,
            num_attention_heads=architecture.heads,
            attention_head_dim=architecture.dim // architecture.heads,
            num_layers=architecture.layers,
            text_embed_dim=architecture.text_dim,
            adaln_lora_dim=architecture.adaln_lora_dim,
            max_size=_MAX_SIZE,
            patch_size=_PATCH,
            rope_scale=_ROPE_SCALE,
            concat_padding_mask=False,  # it needs torchvision; the mask is one more channel here
            extra_pos_embed_type=None,
        )
        for block in self.transformer.transformer_blocks:
            for attention in (block.attn1, block.attn2):
                attention.norm_q.eps = attention.norm_k.eps = _QK_NORM_EPS
                attention.processor = SelfOrCrossAttention()

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        tokens: Tensor,
        text: Tensor,
        fps: float = CONDITIONING_FPS,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """The raw network output F(c_in x, c_noise).

        Args:
            latents: [B, 16, T, H, W], already scaled by c_in.
            timesteps: [B], c_noise = ln(sigma) / 4.
            tokens: [B, T, h, w] integer ids; the grid is resized to H x W.
            text: [B, S, C] text embeddings.
            fps: frame rate that stretches the temporal positions; 24 leaves them alone. For parity only.
            padding_mask: [B, 1, Hp, Wp], 1 where pixels are padding; None for no padding. For parity only.

        Returns:
            [B, 16, T, H, W].
        """
        dtype = self.token_embedder.weight.dtype
        batch, _, frames, height, width = latents.shape
        if padding_mask is None:
            mask = latents.new_zeros((batch, 1, frames, height, width))
        else:
            resized = F.interpolate(padding_mask.to(latents.dtype), size=(height, width), mode="nearest")
            mask = resized.unsqueeze(2).expand(-1, -1, frames, -1, -1)
        channels = (latents.to(dtype), self._token_channels(tokens, height, width), mask.to(dtype))
        prediction: Tensor = self.transformer(
            hidden_states=torch.cat(channels, dim=1),
            timestep=timesteps,
            encoder_hidden_states=text.to(dtype),
            fps=fps,
            return_dict=False,
        )[0]
        return prediction

    def _token_channels(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """[B, T, h, w] ids -> [B, D, T, H, W]: embedded, then resized bilinearly frame by frame."""
        embedded = self.token_embedder(tokens)
        # [B, T, h, w, D] -> [B T, D, h, w]
        planes = embedded.permute(0, 1, 4, 2, 3).flatten(0, 1)
        resized = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
        batch, frames = tokens.shape[:2]
        return resized.reshape(batch, frames, -1, height, width).transpose(1, 2)


class DiffusionDenoiser(nn.Module):
    """The `diffusion_denoiser` stage: both rows of classifier-free guidance in one evaluation.

    The unconditional row sees token 0 everywhere (a real token with a real embedding) and zero
    text, as in the published sampler.
    """

    def __init__(self, network: DiffusionTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, timestep: Tensor, tokens: Tensor, text_embeddings: Tensor) -> Tensor:
        """The conditional and the unconditional prediction.

        Args:
            latents: [16, 8, H, W] float32, already scaled by c_in.
            timestep: [1] float32, c_noise = ln(sigma) / 4.
            tokens: [8, H/2, W/2] int32.
            text_embeddings: [512, C] float32, zero past the prompt.

        Returns:
            [2, 16, 8, H, W] float32: conditional, unconditional.
        """
        predictions: Tensor = self.network(
            latents.expand(2, -1, -1, -1, -1),
            timestep.expand(2),
            torch.stack([tokens, torch.zeros_like(tokens)]),
            torch.stack([text_embeddings, torch.zeros_like(text_embeddings)]),
        )
        return predictions.float()


def load_diffusion_transformer(
    architecture: DiffusionDecoderArchitecture,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
) -> DiffusionTransformer:
    """The network with its weights.

    Args:
        architecture: what to build.
        tensors: `net.*` under published names, without buffers.
        dtype: type of the weights; None keeps the checkpoint's.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    return load(
        lambda: DiffusionTransformer(architecture),
        tensors,
        RENAMES,
        what=f"{architecture.name} diffusion decoder",
        dtype=dtype,
    )
