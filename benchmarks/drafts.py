"""Which first drafts serve parallel decoding best, on videos a network has learned.

    python -m benchmarks.drafts --seconds 60 --output benchmarks/results/drafts-small-cpu.json

Random weights say nothing about drafts, and the published weights are not at hand, so this trains a small
network on synthetic videos: two random textures drift over a grid with constant velocities, under noise, and
a token is the pair of their quantised values. Then it generates worlds with every source of drafts, window
and sampling setting, and counts passes. Tokens are the same in all cases, as the last column checks. Prints a
table; the last line is one JSON document.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.result import describe, finish, table
from cosmos_triton.architectures import AUTOREGRESSIVE, AutoregressiveArchitecture
from cosmos_triton.autoregressive import (
    DRAFT_SOURCES,
    AutoregressiveTransformer,
    KVCache,
    Layer,
    SamplingParameters,
    Sequences,
    decode,
    plain,
    plain_steps,
    prefill,
    rotary_angles,
)

LEVELS = 16
ARCHITECTURE = dataclasses.replace(
    AUTOREGRESSIVE["tiny"],
    name="drafts",
    dim=256,
    layers=4,
    heads=8,
    kv_heads=4,
    ffn_dim=768,
    vocabulary=LEVELS**2,
    embedding_rows=LEVELS**2,
)
WORLDS = 3


def videos(count: int, noise: float, device: str) -> Tensor:
    """Token videos: [count, T H W] int64."""
    latents, height, width = ARCHITECTURE.latent_shape
    t, h, w = torch.meshgrid(
        *(torch.arange(n, device=device, dtype=torch.float32) for n in (latents, height, width)),
        indexing="ij",
    )
    channels = []
    for _ in range(2):
        value = torch.zeros(count, latents, height, width, device=device)
        velocity = torch.randn(count, 2, 1, 1, 1, device=device) * 2
        for _ in range(4):
            frequency = torch.randn(count, 2, 1, 1, 1, device=device) * 0.35
            phase = torch.rand(count, 1, 1, 1, device=device) * 6.283
            moved = frequency[:, 0] * (h - velocity[:, 0] * t) + frequency[:, 1] * (w - velocity[:, 1] * t)
            value += torch.sin(moved + phase)
        value += noise * torch.randn_like(value)
        channels.append(((value / 5 + 0.5) * LEVELS).long().clamp(0, LEVELS - 1))
    return (channels[0] * LEVELS + channels[1]).flatten(1)


def build_network(device: str) -> AutoregressiveTransformer:
    """Fresh weights, ready to be trained."""
    network = AutoregressiveTransformer(ARCHITECTURE, plain).to(device)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if "norm" in name:
                parameter.fill_(1)
            else:
                parameter.normal_(std=0.02 if name == "embedding" else parameter.shape[-1] ** -0.5)
    angles = rotary_angles(ARCHITECTURE)
    network.rotary = torch.cat([angles.cos(), angles.sin()], dim=1).to(device, torch.float32)
    return network.requires_grad_(True)


def train_logits(network: AutoregressiveTransformer, tokens: Tensor) -> Tensor:
    """The network without a cache, so that gradients flow: [B, L] → [B, L, V]."""
    a: AutoregressiveArchitecture = ARCHITECTURE
    x = network.embedding[tokens]
    angles = network.rotary[: tokens.shape[1], None]  # [L, 1, D]
    for layer in network.layers:
        assert isinstance(layer, Layer)
        attention, feed_forward = layer.attention, layer.feed_forward
        qkv = F.linear(plain.rms_norm(x, layer.attention_norm, a.norm_eps), attention.wqkv)
        heads = qkv.view(*tokens.shape, -1, a.head_dim)
        q, k, v = heads.tensor_split((a.heads, a.heads + a.kv_heads), dim=2)
        q = plain.rotate(plain.rms_norm(q, attention.q_norm, 1e-5), angles).transpose(1, 2)
        k = plain.rotate(plain.rms_norm(k, attention.k_norm, 1e-5), angles).transpose(1, 2)
        seen = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
        x = x + F.linear(seen.transpose(1, 2).flatten(2), attention.wo)
        gate, up = F.linear(plain.rms_norm(x, layer.ffn_norm, a.norm_eps), feed_forward.w13).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, feed_forward.w2)
    return F.linear(plain.rms_norm(x, network.norm, a.norm_eps), network.output)


def train(network: AutoregressiveTransformer, seconds: float, noise: float, device: str) -> tuple[int, float]:
    """Steps made and the last mean loss (nats a token)."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    began, steps, mean = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (steps + 1) / 100) * max(0.05, 1 - elapsed / seconds)
        tokens = videos(64 if device == "cuda" else 8, noise, device)
        with torch.autocast(device, torch.bfloat16):
            logits = train_logits(network, tokens[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
        mean = loss.item() if steps == 1 else 0.98 * mean + 0.02 * loss.item()
    return steps, mean


def passes(
    network: AutoregressiveTransformer,
    prefixes: Tensor,  # [videos, P] int64
    parameters: SamplingParameters,
    window: int,
    draft_source: str,
) -> tuple[float, Tensor]:
    """Passes a token, over all videos, and the tokens."""
    count, length = prefixes.shape
    cache = KVCache(ARCHITECTURE, count, text_rows=1, dtype=torch.float32, device="cpu")
    state = Sequences.allocate(ARCHITECTURE, count, window, torch.device("cpu"))
    for slot in range(count):
        chosen = dataclasses.replace(parameters, seed=parameters.seed + slot)
        state.start(slot, prefixes[slot], chosen)
        prefill(network, cache, state, slot, 0, length - 1)
    last = ARCHITECTURE.video_tokens - 1
    work = 0
    while len(running := (state.positions < last).nonzero().flatten()):
        decode(network, cache, state, running, window, plain_steps, draft_source)
        work += len(running)
    return work / (count * (last + 1 - length)), state.tokens[:, : last + 1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of training")
    parser.add_argument("--noise", type=float, default=0.15)
    parser.add_argument(
        "--weights", type=Path, help="trained before if it exists; else written after training"
    )
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = build_network(device)
    if options.weights is not None and options.weights.exists():
        saved = torch.load(options.weights, map_location=device, weights_only=True)
        network.load_state_dict(saved["weights"])
        steps, loss = saved["steps"], saved["loss"]
    else:
        steps, loss = train(network, options.seconds, options.noise, device)
        if options.weights is not None:
            weights = {name: tensor.bfloat16() for name, tensor in network.state_dict().items()}
            torch.save({"weights": weights, "steps": steps, "loss": loss}, options.weights)
    print(f"{steps} steps, {loss:.3f} nats a token", file=sys.stderr)
    if options.train_only:
        return
    network = network.cpu().requires_grad_(False)
    _, height, width = ARCHITECTURE.latent_shape
    prefixes = videos(WORLDS, options.noise, "cpu")[:, : 2 * height * width]
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for temperature, top_p in ((1.0, 0.8), (1.0, 1.0)):
            parameters = SamplingParameters(7, temperature, top_p)
            _, expected = passes(network, prefixes, parameters, 1, "left")
            for window in (8, 32):
                for draft_source in DRAFT_SOURCES:
                    used, tokens = passes(network, prefixes, parameters, window, draft_source)
                    same = bool(torch.equal(tokens, expected))
                    rows.append(
                        {
                            "temperature": temperature,
                            "top_p": top_p,
                            "window": window,
                            "draft_source": draft_source,
                            "tokens_per_pass": 1 / used,
                            "same_tokens": same,
                        }
                    )
                    print(
                        f"T {temperature} p {top_p} window {window:>2} {draft_source:<6} "
                        f"{1 / used:.2f} tokens a pass, same tokens {same}",
                        file=sys.stderr,
                    )
    result = {
        **describe("drafts"),
        "trained_on": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "training_steps": steps,
        "nats_per_token": loss,
        "noise": options.noise,
        "results": rows,
    }
    finish(table(rows), result, options.output)


if __name__ == "__main__":
    main()
