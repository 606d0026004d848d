"""The stages in order, and how each is trained: data, sizes, minutes, and the files that come of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
    TokenizerArchitecture,
)
from cosmos_triton.autoregressive import build as served_transformer
from cosmos_triton.checkpoints import CheckpointFolder
from small_world import autoencoder, decoder, drawing, sampler, scenes, text, tokenizers, weights
from small_world.loop import Plan, Stage, train
from small_world.pool import CHUNK, HELD_OUT, ClipPool, FilmedPool
from small_world.tokens import Fresh, Tokenizers, World, tokenize

EVENTS = 0.6  # share of Video2World's clips in which something happens that only the prompt tells


@dataclass(frozen=True)
class Options:
    """What a training is told.

    Args:
        folder: of the trained networks, in the published layout; a stage reads what it builds on and adds
            its own.
        runs: logs, states and results of training.
        clips: a folder of one's own videos for a tokenizer to be trained further on, or None.
        pool: clips kept on the device for the tokenizers.
        worlds: clips at hand for the later stages; None takes the recipe's number.
        test: held-out clips.
    """

    folder: Path
    runs: Path
    device: torch.device
    seed: int = 0
    clips: Path | None = None
    batch: int | None = None
    pool: int = 4000
    worlds: int | None = None
    test: int = 200


Write = Callable[[dict[str, Tensor], Path], None]


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained.

    Args:
        what: one line about it.
        plan: minutes of one H100, and rates.
        batch: clips a step.
        worlds: clips at hand, of which the oldest make room for new ones; for the tokenizers see `pool`.
        prepare: makes the stage.
        write: puts its result into a folder in the published layout.
    """

    what: str
    plan: Plan
    batch: int
    worlds: int
    prepare: Callable[[Options, "Recipe"], Stage]
    write: Write


def run(name: str, options: Options, plan: Plan, say: Callable[[str], None] = print) -> None:
    """Train a stage as `plan` says, going on from an earlier session, and write it when it is finished."""
    recipe = RECIPES[name]
    if options.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        for module in (drawing, autoencoder, tokenizers, sampler):
            module.compile_all()
    say(f"{name}: {recipe.what}; preparing its data on {options.device}")
    stage = recipe.prepare(options, recipe)
    train(stage, plan, options.runs, name, say)
    result = options.runs / f"{name}.pt"
    if result.exists():
        recipe.write(torch.load(result, weights_only=True), options.folder)
        say(f"{name}: written to {options.folder}")


def _tokenizer(architecture: TokenizerArchitecture) -> Callable[[Options, Recipe], Stage]:
    def prepare(options: Options, recipe: Recipe) -> Stage:
        pool: ClipPool | FilmedPool = (
            FilmedPool(options.clips, options.device)
            if options.clips is not None
            else ClipPool(options.pool, options.seed + 1, options.device)
        )
        start = None
        if options.clips is not None:
            folder = CheckpointFolder(options.folder)
            discrete = architecture.fsq_levels is not None
            start = weights.read_tokenizer(
                folder.discrete_tokenizer() if discrete else folder.continuous_tokenizer()
            )
        return tokenizers.TokenizerStage(
            architecture,
            device=options.device,
            batch=options.batch or recipe.batch,
            pool=pool,
            test_clips=options.test,
            seed=options.seed,
            start=start,
        )

    return prepare


def _worlds(options: Options, recipe: Recipe, events: float, latents: bool) -> tuple[World, World, Fresh]:
    """Clips to learn from, held-out ones, and where new ones come from."""
    models = Tokenizers.load(CheckpointFolder(options.folder), options.device)
    count, first = options.worlds or recipe.worlds, (options.seed + 2) * (1 << 20)
    learned = scenes.sample(count, first, events)
    unseen = scenes.sample(options.test, HELD_OUT, events)
    world, test = (tokenize(models, chosen, options.device, latents) for chosen in (learned, unseen))
    return world, test, Fresh(models, options.device, first, min(count, CHUNK), events, latents)


def _base(options: Options, recipe: Recipe) -> Stage:
    world, test, fresh = _worlds(options, recipe, events=0.0, latents=False)
    return sampler.SamplerStage(
        AUTOREGRESSIVE["small"],
        world,
        test,
        device=options.device,
        batch=options.batch or recipe.batch,
        seed=options.seed,
        fresh=fresh,
    )


def _video2world(options: Options, recipe: Recipe) -> Stage:
    world, test, fresh = _worlds(options, recipe, events=EVENTS, latents=False)
    found = CheckpointFolder(options.folder).autoregressive("small")
    base = served_transformer(found.architecture, found.tensors, dtype=torch.float32, device="cpu")
    return sampler.SamplerStage(
        AUTOREGRESSIVE["small-video2world"],
        world,
        test,
        device=options.device,
        batch=options.batch or recipe.batch,
        seed=options.seed,
        text_architecture=TEXT_ENCODERS["small"],
        base=dict(base.named_parameters()),
        fresh=fresh,
    )


def _decoder(options: Options, recipe: Recipe) -> Stage:
    world, test, fresh = _worlds(options, recipe, events=EVENTS, latents=True)
    stage = decoder.DecoderStage(
        DIFFUSION_DECODERS["small"],
        world,
        test,
        device=options.device,
        batch=options.batch or recipe.batch,
        seed=options.seed,
        fresh=fresh,
    )
    if options.device.type == "cuda":
        decoder.compile_blocks(stage.network)
    return stage


def _write_tokenizer(architecture: TokenizerArchitecture, result: dict[str, Tensor], folder: Path) -> None:
    weights.write_tokenizer(architecture, result, folder)


def _write_base(result: dict[str, Tensor], folder: Path) -> None:
    weights.write_autoregressive(AUTOREGRESSIVE["small"], _part(result, "transformer."), folder)


def _write_video2world(result: dict[str, Tensor], folder: Path) -> None:
    architecture = TEXT_ENCODERS["small"]
    weights.write_autoregressive(AUTOREGRESSIVE["small-video2world"], _part(result, "transformer."), folder)
    place = weights.write_text_encoder(architecture, _part(result, "text_encoder."), folder)
    text.write_tokenizer(place, architecture.max_tokens)


def _write_decoder(result: dict[str, Tensor], folder: Path) -> None:
    architecture = DIFFUSION_DECODERS["small"]
    weights.write_diffusion_decoder(architecture, result, decoder.stored_context(architecture), folder)


def _part(result: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): tensor for n, tensor in result.items() if n.startswith(prefix)}


_DISCRETE, _CONTINUOUS = DISCRETE_TOKENIZERS["small-DV8x16x16"], CONTINUOUS_TOKENIZERS["small-CV8x8x8"]
_SAMPLING = Plan(minutes=8, rate=1.2e-3, betas=(0.9, 0.95), decay=0.05)

RECIPES: dict[str, Recipe] = {
    "discrete": Recipe(
        "video to tokens and back (DV8x16x16)",
        Plan(minutes=9, rate=1.5e-3),
        batch=16,
        worlds=0,
        prepare=_tokenizer(_DISCRETE),
        write=partial(_write_tokenizer, _DISCRETE),
    ),
    "continuous": Recipe(
        "video to latents and back (CV8x8x8)",
        Plan(minutes=9, rate=1.5e-3),
        batch=16,
        worlds=0,
        prepare=_tokenizer(_CONTINUOUS),
        write=partial(_write_tokenizer, _CONTINUOUS),
    ),
    "base": Recipe(
        "the transformer that goes on with a video",
        _SAMPLING,
        batch=64,
        worlds=24_000,
        prepare=_base,
        write=_write_base,
    ),
    "decoder": Recipe(
        "the diffusion decoder, tokens to latents",
        Plan(minutes=8, rate=1e-3),
        batch=32,
        worlds=12_000,
        prepare=_decoder,
        write=_write_decoder,
    ),
    "video2world": Recipe(
        "the transformer that does what a prompt says, and its text encoder",
        replace(_SAMPLING, rate=1e-3),
        batch=64,
        worlds=24_000,
        prepare=_video2world,
        write=_write_video2world,
    ),
}
"""In the order in which they build on each other."""
