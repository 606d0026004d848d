"""The diffusion decoder against the reference: network, schedule, sampler, windows, whole pipeline.

`dd_dit` holds a network and evaluations of it: `io.NAME.out` with its inputs (one forward),
`io.NAME.stepN.*` (a sampler run), `io.schedN.*`, `io.rope_real.*`. The token embedding may lie in a
companion `dd_token_embedder`. `dd_pipeline` runs network and tokenizer of its siblings from tokens
to pixels. What a `v10` run holds belongs to an older release's sampler, which is not served.
"""

import re
from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from torch import Tensor

from cosmos_triton.architectures import DiffusionDecoderArchitecture
from cosmos_triton.checkpoints.published import DIFFUSION_DECODER_FAMILY
from cosmos_triton.diffusion.padding import pad_by_reflection
from cosmos_triton.diffusion.sampler import denoise
from cosmos_triton.diffusion.settings import DiffusionSettings
from cosmos_triton.diffusion.transformer import (
    DiffusionDenoiser,
    DiffusionTransformer,
    load_diffusion_transformer,
)
from cosmos_triton.networks.continuous_tokenizer import (
    ContinuousDecoder,
    LatentDecoder,
    LatentStatistics,
    load_continuous_decoder,
)
from support.long_worlds import blend_windows, window_frames
from support.parity_files import Content, ParityFile
from support.tokenizer_checks import assert_near, latent_statistics, tokenizer_architecture, tokenizer_weights

FORWARD = 2e-5
SAMPLER = 1e-4
ANGLES = 1e-5  # of up to 80 positions times a frequency, in float32
SIGMAS = 2e-6  # relative; the reference's scheduler makes its ramp in float32

_BLOCKS = "net.blocks.block"
_EMBEDDING = "net.token_embedder.weight"
_PATCHES = "net.x_embedder.proj.1.weight"
_OUTPUT = "net.final_layer.linear.weight"
_HEAD = f"{_BLOCKS}0.blocks.0.block.attn.to_q.1.weight"
_TEXT = f"{_BLOCKS}0.blocks.1.block.attn.to_k.0.weight"
_LORA = f"{_BLOCKS}0.blocks.0.adaLN_modulation.1.weight"
_TELLING = (_PATCHES, _OUTPUT, _HEAD, _TEXT, _LORA)  # their shapes are the network's dimensions
_OLDER_SAMPLER = ("v10",)
_OVERLAP = 2
_TEXT_ROWS = 512
_PATCH_PIXELS = 4


def check_network(file: ParityFile) -> None:
    network = diffusion_network(file)
    runs = sorted({match[1] for name in file.tensors if (match := re.match(r"io\.(\w+)\.step\d+\.", name))})
    evaluated = {*file.cases("out"), *file.cases("crossattn_emb")}
    forwards = sorted(evaluated.difference(runs, _OLDER_SAMPLER))
    assert forwards or runs, f"{file.path.name} holds neither a forward nor a sampler run"
    with torch.inference_mode():
        for name in forwards:
            _check_forward(name, file, network)
        for name in runs:
            _check_run(name, file, network)
    for name in file.cases("sigmas"):
        _check_schedule(name, file)
    if file.case("rope_real.fp32"):
        _check_real_angles(file)


def _check_forward(name: str, file: ParityFile, network: DiffusionTransformer) -> None:
    case = file.case(name)
    (fps,) = case["fps"].unique().tolist()  # one rate for the whole batch, as the reference demands
    out = network(
        case["x"],
        case["timesteps"],
        case["tokens"].squeeze(1),
        case["crossattn_emb"],
        fps=fps,
        padding_mask=case["padding_mask"],
    )
    assert_near(f"{name} out", out, case["out"], FORWARD)


def _check_run(name: str, file: ParityFile, network: DiffusionTransformer) -> None:
    case = file.case(name)
    noise, tokens = case["noise_unit"][0], case["tokens"][0, 0].int()
    settings = DiffusionSettings(
        steps=sum(n.endswith(".prev") for n in case),
        guidance=_guidance(file),
    )
    denoiser, text = DiffusionDenoiser(network).eval(), case["t5"][0]
    step = 0

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        nonlocal step
        predictions = denoiser(latents, timestep, tokens, text)
        assert_near(f"{name} t{step}", timestep, case[f"step{step}.t"], SIGMAS)
        sigma = (4 * timestep).exp()
        sample = latents * (sigma**2 + settings.sigma_data**2).sqrt()  # undoes c_in
        before = case[f"step{step - 1}.prev" if step else "step0.xt"]
        assert_near(f"{name} x{step}", sample[None], before, SAMPLER)
        assert_near(f"{name} cond{step}", predictions[:1], case[f"step{step}.cond_out"], SAMPLER)
        assert_near(f"{name} uncond{step}", predictions[1:], case[f"step{step}.uncond_out"], SAMPLER)
        guided = predictions[:1] + settings.guidance * (predictions[:1] - predictions[1:])
        assert_near(f"{name} guided{step}", guided, case[f"step{step}.guided"], SAMPLER)
        step += 1
        return predictions

    sample = denoise(predict, noise, settings) * settings.sigma_data
    assert_near(f"{name} out", sample, case["out"][0], SAMPLER)


def _check_schedule(name: str, file: ParityFile) -> None:
    sigmas = file.tensors[f"io.{name}.sigmas"]
    settings = DiffusionSettings(steps=len(sigmas) - 1)
    scheduler = EDMEulerScheduler(
        sigma_min=settings.sigma_min, sigma_max=settings.sigma_max, sigma_data=settings.sigma_data
    )
    scheduler.set_timesteps(settings.steps)
    assert_near(f"{name} sigmas", scheduler.sigmas[:-1] / sigmas[:-1], torch.ones(settings.steps), SIGMAS)
    assert scheduler.sigmas[-1] == sigmas[-1]
    assert_near(f"{name} timesteps", scheduler.timesteps, file.tensors[f"io.{name}.timesteps"], SIGMAS)


def _check_real_angles(file: ParityFile) -> None:
    """Rotary angles of the published size, from the network's own table of cosines and sines."""
    expected = {axis: file.tensors[f"io.rope_real.fp32.{axis}"] for axis in "thw"}
    t, h, w = (len(expected[axis]) for axis in "thw")
    halves = [expected[axis].shape[1] for axis in "thw"]
    architecture = DiffusionDecoderArchitecture(
        name="angles",
        dim=2 * sum(halves),
        layers=0,
        heads=1,
        text_dim=1,
        adaln_lora_dim=1,
        vocabulary=1,
        token_dim=1,
        latent_channels=1,
        latent_frames=t,
    )
    rope = DiffusionTransformer(architecture).transformer.rope
    cos, sin = (
        table.reshape(t, h, w, -1)[..., : sum(halves)].split(halves, dim=-1)
        for table in rope(torch.empty(1, 1, t, 2 * h, 2 * w), fps=24.0)
    )
    grids = {"t": (slice(None), 0, 0), "h": (0, slice(None), 0), "w": (0, 0, slice(None))}
    for place, (axis, grid) in enumerate(grids.items()):
        assert_near(f"cos {axis}", cos[place][grid], expected[axis].cos(), ANGLES)
        assert_near(f"sin {axis}", sin[place][grid], expected[axis].sin(), ANGLES)


def check_token_embedder(file: ParityFile) -> None:
    """A companion on its own: a table that the network's embedding takes."""
    table = _table(file)
    assert table.ndim == 2
    assert table.isfinite().all()
    fitting = [other for other in _whole(file.siblings("dd_dit")) if _embedding_of(other) is not None]
    assert fitting, f"no network (dd_dit) in {file.path.parent} takes embeddings of width {table.shape[1]}"


def check_windows(file: ParityFile) -> None:
    """Which frames each window sees, and how windows are blended."""
    splits, blends = file.meta.get("split_with_overlap", []), file.meta.get("linear_blend", [])
    assert splits or blends, f"{file.path.name} holds no case"
    for case in splits:
        _check_split(case["T"], case["window"], case["overlap"], case.get("chunks"))
    for name in {match[1] for n in file.tensors if (match := re.match(r"io\.(.+)\.chunk\d+$", n))}:
        _check_split_tokens(file.tensors[f"io.{name}"], file.case(name))
    for case in blends:
        _check_blend(file, case)


def _check_split(frames: int, window: int, overlap: int, expected: list[list[int]] | None) -> None:
    try:
        windows: list[list[int]] | None = window_frames(frames, window, overlap)
    except ValueError:
        windows = None
    assert windows == expected, f"{frames} frames in windows of {window}, overlap {overlap}: {windows}"
    if expected is not None and len(expected) == 1 and frames <= window:
        assert pad_by_reflection(torch.arange(frames), window).tolist() == expected[0]


def _check_split_tokens(tokens: Tensor, chunks: dict[str, Tensor]) -> None:
    frames = window_frames(tokens.shape[2], chunks["chunk0"].shape[2], _OVERLAP)
    assert len(frames) == len(chunks)
    for place, seen in enumerate(frames):
        assert torch.equal(tokens[:, :, seen], chunks[f"chunk{place}"]), f"window {place} differs"


def _check_blend(file: ParityFile, case: dict[str, object]) -> None:
    prefix = f"io.blend{case.get('id')}"
    if "error" not in case:
        blended = blend_windows(file.tensors[f"{prefix}.in"].unbind(), int(str(case["D"])))
        assert_near(prefix, blended, file.tensors[f"{prefix}.out"], SAMPLER)
        return
    shape = (1, 2, int(str(case.get("t", 1))), 2, 2)
    try:
        blend_windows([torch.zeros(shape)] * int(str(case["N"])), int(str(case.get("D", 0))))
    except ValueError:
        return
    raise AssertionError(f"{case} was blended, though the reference could not")


def check_pipeline(file: ParityFile) -> None:
    """Tokens to pixels, with network and tokenizer of the sibling files."""
    names = file.cases("indices")
    assert names, f"{file.path.name} holds no case: no io.*.indices"
    denoiser, decoder, statistics = _pipeline(file)
    with torch.inference_mode():
        for name in names:
            _check_pipeline_case(name, file, denoiser, decoder, statistics)


def _check_pipeline_case(
    name: str,
    file: ParityFile,
    denoiser: DiffusionDenoiser,
    decoder: ContinuousDecoder,
    statistics: LatentStatistics,
) -> None:
    case, meta = file.case(name), file.meta["cases"][name]
    tokens = case["indices"].int()
    text = torch.zeros(_TEXT_ROWS, case["t5"].shape[-1])
    text[: case["t5"].shape[1]] = case["t5"][0]
    noises = [case[f"chunk{i}.noise_unit"][0] for i in range(sum(n.endswith(".noise_unit") for n in case))]
    settings = DiffusionSettings(steps=meta["num_steps"], guidance=meta["guidance"])
    windows = window_frames(len(tokens), noises[0].shape[1], _OVERLAP)
    assert len(windows) == len(noises), f"{name}: {len(windows)} windows, {len(noises)} noises"
    samples = [
        denoise(lambda x, t, seen=tokens[frames]: denoiser(x, t, seen, text), noise, settings)
        for frames, noise in zip(windows, noises, strict=True)
    ]
    for place, sample in enumerate(samples):
        expected = case[f"chunk{place}.latent"][0]
        assert_near(f"{name} latents {place}", sample * settings.sigma_data, expected, SAMPLER)

    # A single window is decoded as it is served: only the latents that are kept.
    kept = [sample[:, : len(tokens)] for sample in samples]
    videos = [decoder(statistics.restore(latents[None])).clamp(-1, 1) for latents in kept]
    video = videos[0] if len(videos) == 1 else blend_windows(videos, _OVERLAP)
    video = (1 + video[0, :, : meta["requested_frames"]]) / 2
    # Of a long video, the file holds the last frames alone.
    assert_near(f"{name} video", video[:, -case["video01"].shape[1] :], case["video01"], SAMPLER)
    assert_levels(f"{name} pixels", (video * 255).floor().byte(), case["video_u8"])
    if len(kept) == 1:
        frames = LatentDecoder(decoder, statistics)(kept[0])
        assert_levels(f"{name} frames", frames.permute(3, 0, 1, 2), case["video_u8"])


def assert_levels(what: str, actual: Tensor, expected: Tensor) -> None:
    """Equal bytes but for a few that lie a level apart.

    Truncation turns a difference of 1e-6 into a level where a value lies on a boundary.
    """
    assert actual.shape == expected.shape, f"{what}: {list(actual.shape)} instead of {list(expected.shape)}"
    levels = (actual.int() - expected.int()).abs()
    assert levels.max() <= 1, f"{what}: off by {levels.max()} levels"
    assert levels.float().mean() <= 1e-3, f"{what}: {levels.sum()} pixels off by a level"


def _pipeline(file: ParityFile) -> tuple[DiffusionDenoiser, ContinuousDecoder, LatentStatistics]:
    case = file.case(file.cases("indices")[0])
    channels, text_dim = case["chunk0.noise_unit"].shape[1], case["t5"].shape[-1]
    networks = [
        other
        for other in _whole(file.siblings("dd_dit"))
        if (architecture := diffusion_architecture(other)).text_dim == text_dim
        and architecture.latent_channels == channels
    ]
    tokenizers = [
        other
        for other in file.siblings("cv_tokenizer")
        if "config" in other.meta and tokenizer_architecture(other).latent_channels == channels
    ]
    place = file.path.parent
    assert networks, f"{file.path.name} needs a network (dd_dit, text width {text_dim}) in {place}"
    assert tokenizers, f"{file.path.name} needs a tokenizer (cv_tokenizer, {channels} channels) in {place}"
    tokenizer = tokenizers[0]
    decoder = load_continuous_decoder(
        tokenizer_architecture(tokenizer), tokenizer_weights(tokenizer), torch.float32
    )
    return DiffusionDenoiser(diffusion_network(networks[0])).eval(), decoder, latent_statistics(tokenizer)


def diffusion_network(file: ParityFile) -> DiffusionTransformer:
    """The network of a `dd_dit` file, its embedding from the file itself or from a companion."""
    weights = file.weights(DIFFUSION_DECODER_FAMILY)
    embedding = _embedding_of(file)
    assert embedding is not None, (
        f"{file.path.name} needs a token embedding (dd_token_embedder) of width "
        f"{diffusion_architecture(file).token_dim} in {file.path.parent}"
    )
    return load_diffusion_transformer(
        diffusion_architecture(file, rows=len(embedding)), weights | {_EMBEDDING: embedding}, torch.float32
    )


def _embedding_of(file: ParityFile) -> Tensor | None:
    own = file.weights(DIFFUSION_DECODER_FAMILY).get(_EMBEDDING)
    if own is not None:
        return own
    width = diffusion_architecture(file).token_dim
    tables = (_table(other) for other in file.siblings("dd_token_embedder"))
    return next((table for table in tables if table.shape[1] == width), None)


def _table(file: ParityFile) -> Tensor:
    table = file.weights(DIFFUSION_DECODER_FAMILY).get(_EMBEDDING)
    assert table is not None, f"{file.path.name} lacks {_EMBEDDING}"
    return table


def _whole(networks: list[ParityFile]) -> list[ParityFile]:
    """Networks whose dimensions their weights tell; the others fail in their own check."""
    return [file for file in networks if all(name in _named(file) for name in _TELLING)]


def _named(file: ParityFile) -> Content:
    return Content(f"{file.path.name}.safetensors", file.weights(DIFFUSION_DECODER_FAMILY))


def diffusion_architecture(file: ParityFile, rows: int = 64000) -> DiffusionDecoderArchitecture:
    """What the shapes of a `dd_dit` file's weights say."""
    tensors = _named(file)
    shapes = Content(f"{file.path.name}.safetensors", {name: t.shape for name, t in tensors.items()})
    dim, patch = shapes[_PATCHES]
    latent_channels = shapes[_OUTPUT][0] // _PATCH_PIXELS
    return DiffusionDecoderArchitecture(
        name=file.path.name,
        dim=dim,
        layers=len({m[1] for name in shapes if (m := re.match(rf"{re.escape(_BLOCKS)}(\d+)\.", name))}),
        heads=dim // shapes[_HEAD][0],
        text_dim=shapes[_TEXT][1],
        adaln_lora_dim=shapes[_LORA][0],
        vocabulary=rows,
        token_dim=patch // _PATCH_PIXELS - latent_channels - 1,
        latent_channels=latent_channels,
        latent_frames=8,
    )


def _guidance(file: ParityFile) -> float:
    """From `cond + 1.8*(cond-uncond)`, or the published 1.8."""
    formula = str(file.meta.get("generate", {}).get("guidance_formula", ""))
    found = re.search(r"cond *\+ *([\d.]+) *\*", formula)
    return float(found[1]) if found else DiffusionSettings().guidance


CHECKS: dict[str, Callable[[ParityFile], None]] = {
    "dd_dit": check_network,
    "dd_token_embedder": check_token_embedder,
    "dd_chunking": check_windows,
    "dd_pipeline": check_pipeline,
}
