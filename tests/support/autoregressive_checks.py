"""The autoregressive transformer against the reference: logits, greedy videos, top-p, tables, real sizes.

A file of kind `ar` is one small model: weights under published names, with or without `model.`; `io.*` what
the reference made of them; `meta["model"]` its dimensions. `ar_real_configs` has the published dimensions
and tensor names, `ar_real_tables` sampled rows of the published position tables.
"""

import queue
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cosmos_triton.architectures import AUTOREGRESSIVE, TEXT_ROWS, AutoregressiveArchitecture, Yarn
from cosmos_triton.autoregressive import nucleus
from cosmos_triton.autoregressive.engine import Engine
from cosmos_triton.autoregressive.kv_cache import KVCache, slot_bytes
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.positions import absolute_positions, axis_frequencies, rotary_angles
from cosmos_triton.autoregressive.requests import Generation, GenerationRequest
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer, build
from cosmos_triton.checkpoints.published import AUTOREGRESSIVE_FAMILY, autoregressive_shapes
from support.parity_files import ParityFile

LOGITS = 5e-5
CACHE = 2e-5
TABLES = 5e-6  # the reference multiplies positions and frequencies in float32, up to 63 radians
PROBABILITIES = 1e-6
WINDOWS = (1, 5)


def check_model(file: ParityFile) -> None:
    architecture = architecture_of(file.path.name, file.meta["model"])
    weights = file.weights(AUTOREGRESSIVE_FAMILY)
    network = build(architecture, weights, dtype=torch.float32, device="cpu")
    runs = sorted({match[1] for name in file.tensors if (match := re.match(r"io\.(greedy_[^.]+)\.", name))})
    assert runs, f"{file.path.name} holds no greedy run (io.greedy_*)"
    with torch.inference_mode():
        _check_tables(file, architecture)
        _check_logits(file, network)
        _check_top_p(file)
    for run in runs:
        for window in WINDOWS:
            _check_greedy(file, network, run, window)


def architecture_of(name: str, model: dict[str, Any]) -> AutoregressiveArchitecture:
    """The architecture that the reference's configuration `model` describes."""
    yarn = None
    if model["apply_yarn"]:
        yarn = Yarn(
            original_shape=tuple(model["original_latent_shape"]),
            beta_fast=model["yarn_beta_fast"],
            beta_slow=model["yarn_beta_slow"],
            scale=model["yarn_scale"],
        )
    latents, height, width = model["video_latent_shape"]
    architecture = AutoregressiveArchitecture(
        name=name,
        dim=model["dim"],
        layers=model["n_layers"],
        heads=model["n_heads"],
        kv_heads=model["n_kv_heads"],
        head_dim=model.get("head_dim_effective") or model["head_dim"] or model["dim"] // model["n_heads"],
        ffn_dim=model["ffn_hidden_size"],
        vocabulary=model["vocab_size"],
        embedding_rows=_embedding_rows(model),
        norm_eps=model["norm_eps"],
        rope_theta=model["rope_theta"],
        latent_shape=(latents, height, width),
        yarn=yarn,
        text_dim=model["context_dim"] if model["insert_cross_attn"] else None,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    )
    told = model["max_seq_len"]
    assert architecture.max_sequence == told, f"{name}: {architecture.max_sequence} positions, not {told}"
    return architecture


def _embedding_rows(model: dict[str, Any]) -> int:
    """Video2World adds one special token and pads the vocabulary to a multiple of 64."""
    codes: int = model["vocab_size"]
    rows = -(-(codes + 1) // 64) * 64 if model["insert_cross_attn"] else codes
    return model.get("tok_embeddings_rows", rows)


def _check_tables(file: ParityFile, architecture: AutoregressiveArchitecture) -> None:
    angles = rotary_angles(architecture).repeat(1, 2)  # [max_sequence, head_dim]
    _assert_near("rope_cos", angles.cos(), file.tensors["io.rope_cos"], TABLES)
    _assert_near("rope_sin", angles.sin(), file.tensors["io.rope_sin"], TABLES)
    temporal, spatial = axis_frequencies(architecture)
    _assert_near("temporal", temporal, file.tensors["io.rope_temporal_inv_freq"], PROBABILITIES)
    _assert_near("spatial", spatial, file.tensors["io.rope_spatial_inv_freq"], PROBABILITIES)
    if architecture.is_video2world:
        assert torch.equal(absolute_positions(architecture).float(), file.tensors["io.abs_pos_emb"])


def _check_logits(file: ParityFile, network: AutoregressiveTransformer) -> None:
    tensors = file.tensors
    tokens = tensors["io.tf_tokens"].long()[None]  # [1, N]
    length, prefix = tokens.shape[1], len(tensors["io.prefill_logits"])
    positions = torch.arange(length)[None]
    cache, slots = _cache_with_text(file, network), torch.tensor([1])

    def logits(start: int, stop: int) -> Tensor:  # [stop - start, V]
        hidden = network(tokens[:, start:stop], positions[:, start:stop], slots, cache)
        return network.logits(hidden)[0]

    _assert_near("prefill", logits(0, prefix), tensors["io.prefill_logits"], LOGITS)
    decoded = torch.cat([logits(position, position + 1) for position in range(prefix, length)])
    _assert_near("decode", decoded, tensors["io.decode_logits"], LOGITS)
    _assert_near("one window", logits(prefix, length), tensors["io.decode_logits"], LOGITS)
    for stored, name in ((cache.keys, "io.debug.kv_layer0_k"), (cache.values, "io.debug.kv_layer0_v")):
        if name in tensors:
            _assert_near(name, stored[0, 1, :, :length], tensors[name], CACHE)


def _cache_with_text(file: ParityFile, network: AutoregressiveTransformer) -> KVCache:
    text = file.tensors.get("io.context")  # [1, rows, text_dim]
    rows = 0 if text is None else text.shape[1]
    cache = KVCache(network.architecture, 2, text_rows=rows, dtype=torch.float32, device="cpu")
    if text is not None:
        network.store_text(text[0], 1, cache)
    return cache


def _check_top_p(file: ParityFile) -> None:
    """Who is in the nucleus, with what probability, and who is drawn with the reference's own noise."""
    temperature, top_p = (file.meta["checks"]["topp"][key] for key in ("temperature", "top_p"))
    names = ("logits", "probs", "noise_by_rank", "sampled_token")
    rows = zip(*(file.tensors[f"io.topp.{name}"] for name in names), strict=True)
    for logits, expected, noise, sampled in rows:
        ids = torch.arange(len(logits))
        inside = torch.stack(
            [nucleus.draw(logits, temperature, top_p, _favour(token)) == token for token in ids.tolist()]
        )
        probabilities = (logits / temperature).masked_fill(~inside, -torch.inf).softmax(0)
        _assert_near("top-p", probabilities, expected, PROBABILITIES)
        ranks = logits.argsort(descending=True, stable=True).argsort()
        by_token = -noise.log()[ranks]  # the reference divides by Exp(1) noise: Gumbel's, in logs
        drawn = nucleus.draw(logits, temperature, top_p, lambda tokens, by=by_token: by[tokens])
        assert drawn == sampled


def _favour(token: int) -> Callable[[Tensor], Tensor]:
    """Noise with which `token` wins whenever it may be drawn at all."""
    return lambda tokens: 1e4 * (tokens == token).float()


def _check_greedy(file: ParityFile, network: AutoregressiveTransformer, run: str, window: int) -> None:
    """The engine, from context tokens to a whole world."""
    expected = file.tensors[f"io.{run}.thw_indices"]
    prefix = file.tensors[f"io.{run}.prompt_tokens"]
    architecture = network.architecture
    latents = (len(prefix) - architecture.video_start) // expected[0].numel()
    text = file.tensors.get("io.context")
    rows = 1 if text is None else text.shape[1]
    engine = Engine(network, EngineSettings(max_videos=1, window=window, text_rows=rows, prefill_chunk=20))
    outcomes: queue.Queue[Generation | BaseException] = queue.Queue()
    engine.start()
    try:
        engine.submit(
            GenerationRequest(
                id=run,
                context_tokens=expected[:latents].numpy(),
                text_embeddings=None if text is None else text[0].numpy(),
                parameters=SamplingParameters(seed=0, temperature=0.0, top_p=1.0),
            ),
            outcomes.put,
        )
        outcome = outcomes.get(timeout=120)
    finally:
        engine.stop()
    assert isinstance(outcome, Generation), outcome
    assert torch.equal(torch.from_numpy(outcome.tokens), expected), f"{run}, window {window}"


def check_real_configs(file: ParityFile) -> None:
    found = set()
    for published, facts in file.meta.items():
        if not published.startswith("Cosmos-"):
            continue
        name = next(name for name in AUTOREGRESSIVE if f"-{name}" in published)
        preset = AUTOREGRESSIVE[name]
        described = architecture_of(name, facts["config"])
        for field in ("recommended_temperature", "recommended_top_p"):  # not part of the configuration
            object.__setattr__(described, field, getattr(preset, field))
        assert described == preset
        _check_counts(preset, facts)
        found.add(name)
    assert found, "no configuration found"


def _check_counts(preset: AutoregressiveArchitecture, facts: dict[str, Any]) -> None:
    shapes = {f"model.{name}": list(shape) for name, shape in autoregressive_shapes(preset).items()}
    expected = dict(facts["non_layer_shapes"])
    for layer in range(preset.layers):
        expected |= {name.format(i=layer): shape for name, shape in facts["layer_shapes"].items()}
    assert shapes == expected
    assert len(shapes) == facts["n_tensors"]
    parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert parameters == facts["total_params"]
    assert 2 * parameters == facts["checkpoint_bytes_bf16"]
    cache = facts["kv_cache_bytes_max_seq_len_bf16"] + facts["cross_kv_bytes_512ctx_bf16"]
    assert slot_bytes(preset, text_rows=TEXT_ROWS, dtype=torch.bfloat16) == cache
    assert preset.sequence_length == facts["total_sequence"]
    assert preset.max_sequence == facts["rope_table_rows"]
    for frames, latents in {"1_frame": 1, "9_frames": 2}.items():
        plane = preset.latent_shape[1] * preset.latent_shape[2]
        assert preset.video_start + latents * plane == facts["prompt_len"][frames]
        assert preset.video_tokens - latents * plane == facts["generated_tokens"][frames]
    _check_sums(preset, facts)


def _check_sums(preset: AutoregressiveArchitecture, facts: dict[str, Any]) -> None:
    """Sums over whole tables, to a millionth of the number of terms."""
    angles = rotary_angles(preset)
    sums = facts["rope_full_table_sum"]
    for function, expected in ((torch.cos, sums["cos"]), (torch.sin, sums["sin"])):
        assert abs(2 * function(angles).sum().item() - expected) < 1e-6 * 2 * angles.numel()
    if preset.is_video2world:
        table = absolute_positions(preset)
        assert abs(table.double().sum().item() - facts["abs_full_table_sum"]) < 1e-6 * table.numel()


def check_real_tables(file: ParityFile) -> None:
    names = {name.partition(".")[0] for name in file.tensors}
    assert names, "no tables found"
    for name in names:
        tables = {key.partition(".")[2]: value for key, value in file.tensors.items() if key.startswith(name)}
        preset = AUTOREGRESSIVE[name.upper()]
        temporal, spatial = axis_frequencies(preset)
        _assert_near(name, temporal, tables["temporal_inv_freq"], PROBABILITIES)
        _assert_near(name, spatial, tables["spatial_inv_freq"], PROBABILITIES)
        angles = rotary_angles(preset)[tables["rows"].long()].repeat(1, 2)
        _assert_near(name, angles.cos(), tables["rope_cos"], TABLES)
        _assert_near(name, angles.sin(), tables["rope_sin"], TABLES)
        if "abs_rows" in tables:
            rows = absolute_positions(preset)[tables["abs_rows"].long()]
            assert torch.equal(rows.float(), tables["abs_pos_emb"])


def _assert_near(what: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape, f"{what}: {list(actual.shape)}, not {list(expected.shape)}"
    worst = (actual.double() - expected.double()).abs().max().item()
    assert worst <= tolerance, f"{what}: off by {worst:.2e}, more than {tolerance:.0e}"


CHECKS: dict[str, Callable[[ParityFile], None]] = {
    "ar": check_model,
    "ar_real_configs": check_real_configs,
    "ar_real_tables": check_real_tables,
}
