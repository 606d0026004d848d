"""Training the autoregressive transformers: the base model, and Video2World with its text encoder."""

import math
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosmos_triton.architectures import TEXT_ROWS, AutoregressiveArchitecture, TextEncoderArchitecture
from cosmos_triton.autoregressive import (
    AutoregressiveTransformer,
    Layer,
    Operations,
    absolute_positions,
    plain,
    rotary_angles,
)
from small_world import text
from small_world.tokens import REFRESH, Fresh, World

LATENT_WEIGHTS = (0.0, 0.3, 1.0, 1.0, 1.0)  # the first latent is always given, the second with nine frames
CORRUPTED = 0.04  # of the input tokens of half the sequences, against drift
_QK_NORM_EPS = 1e-5  # see autoregressive.transformer

_layer_forward = None  # the compiled form of `_layer`, once there is one


class Conditioned(nn.Module):
    """A transformer, with the text encoder that is trained beside it for Video2World."""

    def __init__(self, transformer: AutoregressiveTransformer, text_encoder: nn.Module | None) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder


def build(architecture: AutoregressiveArchitecture) -> AutoregressiveTransformer:
    """A fresh network whose weights can be trained."""
    # `logits` asks the network for no operations; a module of them could not be copied with it.
    network = AutoregressiveTransformer(architecture, cast(Operations, SimpleNamespace()))
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if "norm" in name:
                parameter.fill_(1)
            elif name == "embedding":
                parameter.normal_(std=0.5)
            else:
                small = 0.2 if name == "output" else 0.4 if name.endswith(("wo", "w2")) else 1.0
                parameter.normal_(std=small * parameter.shape[-1] ** -0.5)
    angles = rotary_angles(architecture)
    network.rotary = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    if architecture.is_video2world:
        network.absolute = absolute_positions(architecture).float()
    return network.requires_grad_(True)


def start_from_base(network: AutoregressiveTransformer, base: dict[str, Tensor]) -> None:
    """Give a Video2World network what a base model has learned; its cross-attention begins at nothing.

    Args:
        base: parameters of an `AutoregressiveTransformer` of the same trunk.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in base:
                parameter[: len(base[name])] = base[name].to(parameter)
            elif name.endswith("cross_attention.wo"):
                parameter.zero_()


def logits(network: AutoregressiveTransformer, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
    """The network without a cache, with gradients: row p is about the token at position p + 1.

    Args:
        tokens: [B, L], the begin-of-video token first for Video2World.
        embeddings: [B, rows, text_dim] the text, zero past its end; the rows up to 512 are added here.

    Returns:
        [B, L, vocabulary].
    """
    length = tokens.shape[1]
    x = F.embedding(tokens, network.embedding)
    rotary = network.rotary[:length, None].to(x.dtype)
    absolute = None if network.absolute is None else network.absolute[:length].to(x.dtype)
    mask = None if embeddings is None else _text_mask(embeddings)
    run = _layer_forward or _layer
    for layer in network.layers:
        assert isinstance(layer, Layer)
        x = run(layer, x, rotary, absolute, embeddings, mask)
    return F.linear(plain.rms_norm(x, network.norm, network.architecture.norm_eps), network.output)


def compile_all() -> None:
    """Compile a layer, once for each form."""
    global _layer_forward
    torch._dynamo.config.recompile_limit = 64
    _layer_forward = torch.compile(_layer, dynamic=False)


class SamplerStage:
    """What the training loop needs to know about a transformer.

    Args:
        architecture: base or Video2World.
        world: clips to learn from; their sentences are the prompts of a Video2World model.
        test: clips that are never trained on.
        text_architecture: of the text encoder; None for a base model.
        base: a trained base model to begin with.
        fresh: where new clips come from, which replace the oldest as training goes on.
    """

    def __init__(
        self,
        architecture: AutoregressiveArchitecture,
        world: World,
        test: World,
        *,
        device: torch.device,
        batch: int = 64,
        seed: int = 0,
        text_architecture: TextEncoderArchitecture | None = None,
        base: dict[str, Tensor] | None = None,
        fresh: Fresh | None = None,
    ) -> None:
        torch.manual_seed(seed)
        encoder = None if text_architecture is None else text.build_encoder(text_architecture)
        self.network = Conditioned(build(architecture), encoder).to(device)
        if base is not None:
            start_from_base(self.network.transformer, base)
        self.architecture, self.device, self.fresh = architecture, device, fresh
        self.captured = encoder is None  # T5 looks at its mask on the host
        self.world, self.test = (_Sentences(w, encoder is not None, device) for w in (world, test))
        self.index, self.other = (torch.zeros(batch, dtype=torch.int64, device=device) for _ in range(2))
        rows = architecture.latent_shape[1] * architecture.latent_shape[2]
        self.weights = torch.tensor(LATENT_WEIGHTS, device=device).repeat_interleave(rows)

    def next_batch(self, step: int) -> None:
        """Choose the clips of a step, and those whose tokens stray into them."""
        if self.fresh is not None and step % REFRESH == REFRESH - 1:
            self.world.replace(self.fresh())
        self.index.random_(len(self.world.tokens))
        self.other.random_(len(self.world.tokens))

    def loss(self) -> tuple[Tensor, Tensor]:
        """Weighted nats a token, and what is logged: nats and accuracy over what is generated."""
        tokens = self.world.tokens[self.index].long()
        stray = torch.rand(tokens.shape, device=self.device) < CORRUPTED
        chosen = torch.rand(len(tokens), 1, device=self.device) < 0.5
        late = self.weights >= 1
        seen = torch.where(stray & chosen & late, self.world.tokens[self.other].long(), tokens)
        losses, right = self._losses(self.network, tokens, seen, self.world.ids(self.index))
        loss = (losses * self.weights).sum() / (self.weights.sum() * len(tokens))
        generated = late.float().sum() * len(tokens)
        return loss, torch.stack([(losses * late).sum() / generated, (right * late).sum() / generated])

    def log(self, values: list[float]) -> dict[str, float]:
        """The logged numbers by name."""
        return {"nats": values[0], "accuracy": values[1]}

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Nats a token and accuracy of each latent frame on held-out clips."""
        assert isinstance(network, Conditioned)
        losses, right = [], []
        for index in torch.arange(len(self.test.tokens), device=self.device).split(len(self.index)):
            tokens = self.test.tokens[index].long()
            values = self._losses(network, tokens, tokens, self.test.ids(index))
            losses.append(values[0])
            right.append(values[1])
        latents = self.architecture.latent_shape[0]
        nats, accuracy = (
            torch.cat(v).unflatten(1, (latents, -1)).mean(dim=(0, 2)).tolist() for v in (losses, right)
        )
        return {"clips": len(self.test.tokens), "nats": nats, "accuracy": accuracy}

    def result(self, network: nn.Module) -> dict[str, Tensor]:
        """Parameters of transformer and text encoder, `transformer.` and `text_encoder.` before the names."""
        return {n: p.detach().to("cpu", torch.bfloat16) for n, p in network.named_parameters()}

    def _losses(
        self, network: Conditioned, tokens: Tensor, seen: Tensor, ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Nats of each token, and whether it was the likeliest: [B, L] each; 0 where nothing is predicted."""
        embeddings = None
        if ids is not None:
            assert network.text_encoder is not None
            embeddings = text.encode(network.text_encoder, ids)  # type: ignore[arg-type]
        bov = self.architecture.bov_token
        first = [] if bov is None else [torch.full_like(seen[:, :1], bov)]
        cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cuda):
            found = logits(network.transformer, torch.cat([*first, seen[:, :-1]], dim=1), embeddings)
        targets = tokens if first else tokens[:, 1:]
        nats = F.cross_entropy(found.float().flatten(0, 1), targets.flatten(), reduction="none")
        right = found.argmax(-1) == targets
        missing = tokens.shape[1] - targets.shape[1]
        return F.pad(nats.view(targets.shape), (missing, 0)), F.pad(right.float(), (missing, 0))


class _Sentences:
    """Clips as sequences, and their prompts."""

    def __init__(self, world: World, prompts: bool, device: torch.device) -> None:
        self.tokens = world.tokens.flatten(1).to(device)  # [N, L] int16
        self._ids = text.prompt_ids(world.scenes).to(device, torch.int16) if prompts else None
        self._place = 0

    def replace(self, world: World) -> None:
        """Put other clips where the oldest are."""
        place = slice(self._place, self._place + len(world.tokens))
        self.tokens[place] = world.tokens.flatten(1)[: len(self.tokens[place])]
        if self._ids is not None:
            self._ids[place] = text.prompt_ids(world.scenes).to(self._ids)[: len(self._ids[place])]
        self._place = place.stop if place.stop < len(self.tokens) else 0

    def ids(self, index: Tensor) -> Tensor | None:
        """Prompts [B, rows], or None for a base model."""
        return None if self._ids is None else self._ids[index].long()


def _text_mask(embeddings: Tensor) -> Tensor:
    """What is added to the scores of the text's rows, and of one that stands for all rows after them.

    A network as served attends over 512 rows, of which those past the prompt are zero; each adds exp(0) to
    the softmax's sum and nothing to its result. One zero row with the logarithm of their number is the same.

    Returns:
        [1, 1, 1, rows + 1].
    """
    rows = embeddings.shape[1]
    mask = embeddings.new_zeros(1, 1, 1, rows + 1)
    mask[..., rows] = math.log(TEXT_ROWS - rows)
    return mask


def _layer(
    layer: Layer,
    x: Tensor,
    rotary: Tensor,
    absolute: Tensor | None,
    embeddings: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    x = x if absolute is None else x + absolute
    x = x + _self_attention(layer, plain.rms_norm(x, layer.attention_norm, layer.eps), rotary)
    if layer.cross_attention is not None:
        assert layer.cross_attention_norm is not None
        assert embeddings is not None
        assert mask is not None
        x = x + _cross_attention(
            layer, plain.rms_norm(x, layer.cross_attention_norm, layer.eps), embeddings, mask
        )
    hidden = plain.rms_norm(x, layer.ffn_norm, layer.eps)
    gate, up = F.linear(hidden, layer.feed_forward.w13).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, layer.feed_forward.w2)


def _self_attention(layer: Layer, x: Tensor, rotary: Tensor) -> Tensor:
    attention, width = layer.attention, rotary.shape[-1]
    heads = attention.wo.shape[1] // width
    by_head = F.linear(x, attention.wqkv).unflatten(-1, (-1, width))  # [B, L, heads + 2 kv_heads, D]
    kv_heads = (by_head.shape[2] - heads) // 2
    q, k, v = by_head.split((heads, kv_heads, kv_heads), dim=2)
    q = plain.rotate(plain.rms_norm(q, attention.q_norm, _QK_NORM_EPS), rotary)
    k = plain.rotate(plain.rms_norm(k, attention.k_norm, _QK_NORM_EPS), rotary)
    seen = F.scaled_dot_product_attention(
        *(y.transpose(1, 2).to(v.dtype) for y in (q, k, v)), is_causal=True, enable_gqa=True
    )
    return F.linear(seen.transpose(1, 2).flatten(2), attention.wo)


def _cross_attention(layer: Layer, x: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
    attention = layer.cross_attention
    assert attention is not None
    width = len(attention.q_norm)
    query = F.linear(x, attention.wq).unflatten(-1, (-1, width))
    query = plain.rms_norm(query, attention.q_norm, _QK_NORM_EPS)
    padded = F.pad(embeddings, (0, 0, 0, 1))  # the row that stands for all after the text
    keys, values = F.linear(padded, attention.wkv).unflatten(-1, (2, -1, width)).unbind(2)
    keys = plain.rms_norm(keys, attention.k_norm, _QK_NORM_EPS)
    seen = F.scaled_dot_product_attention(
        *(y.transpose(1, 2).to(values.dtype) for y in (query, keys, values)),
        attn_mask=mask.to(values.dtype),
        enable_gqa=True,
    )
    return F.linear(seen.transpose(1, 2).flatten(2), attention.wo)
