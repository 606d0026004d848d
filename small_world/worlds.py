"""Measures of whole worlds: where cars and ball end up, whether a prompt decides, what diffusion adds.

Everything runs through the classes that serve the networks: the engine for tokens, the stage modules for
pictures and text.
"""

import queue
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cosmos_triton.architectures import TEXT_ROWS
from cosmos_triton.autoregressive import (
    EngineSettings,
    Generation,
    GenerationRequest,
    SamplingParameters,
    load_engine,
)
from cosmos_triton.checkpoints import CheckpointFolder, load_text_tokenizer
from cosmos_triton.diffusion import DiffusionSettings, Predict, decode_tokens
from cosmos_triton.networks import TextEncoder
from cosmos_triton.pipeline import NETWORKS
from cosmos_triton.residency import Residency
from cosmos_triton.runtimes import load_module
from small_world import scenes
from small_world.pool import HELD_OUT, held_out
from small_world.scenes import BALL_COLOURS, CAR_COLOURS, EVENT, FPS, WIDTH, Scenes
from small_world.tokenizers import judge
from small_world.tokens import Tokenizers

NEAR = 0.05  # of the width: how far from the truth a thing may end up
_LIKE = 0.22  # distance of colours, of pixels in [0, 1], within which they are one
_FEWEST = 12  # pixels that make a thing
_AFTER = round(EVENT * FPS) + 8  # from this frame on an event shows


class Models:
    """A folder's networks, ready to make worlds."""

    def __init__(self, folder: CheckpointFolder, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.tokenizers = Tokenizers.load(folder, device)
        self.video_decoder = self._module("video_decoder")

    def generate(
        self,
        model: str,
        contexts: Tensor,
        texts: Sequence[Tensor | None],
        seed: int = 0,
        window: int = 0,
    ) -> tuple[Tensor, float]:
        """Worlds that begin with `contexts` [N, T, h, w]: tokens [N, t, h, w], and tokens a pass."""
        component = self.folder.autoregressive(model)
        settings = EngineSettings(max_queue=len(contexts), window=window)
        engine = load_engine(component, self.device, Residency.RESIDENT, settings)
        parameters = SamplingParameters.recommended(component.architecture)
        outcomes: queue.Queue[tuple[int, Any]] = queue.Queue()
        engine.start()
        try:
            for i, (context, text) in enumerate(zip(contexts, texts, strict=True)):
                request = GenerationRequest(
                    str(i),
                    context.int().cpu().numpy(),
                    None if text is None else text.cpu().numpy(),
                    replace(parameters, seed=seed + i),
                )
                engine.submit(request, lambda outcome, i=i: outcomes.put((i, outcome)))  # type: ignore[misc]
            found = dict(outcomes.get() for _ in texts)
        finally:
            engine.stop()
        worlds: list[Generation] = [_raised(found[i]) for i in range(len(texts))]
        passes = sum(world.passes for world in worlds)
        tokens = torch.stack([torch.from_numpy(world.tokens) for world in worlds])
        return tokens.to(self.device), sum(world.tokens_generated for world in worlds) / passes

    @torch.no_grad()
    def pictures(self, tokens: Tensor) -> Tensor:
        """Tokens [N, t, h, w] → uint8 [N, T, H, W, 3] by the discrete decoder."""
        return torch.stack([self.video_decoder(world.int()) for world in tokens])

    @torch.no_grad()
    def texts(self, sentences: Sequence[str]) -> list[Tensor]:
        """Text embeddings of prompts: [512, C] each."""
        encoder = self._module("text_encoder")
        assert isinstance(encoder, TextEncoder)
        tokenize = load_text_tokenizer(self.folder.text_tokenizer(), TEXT_ROWS)
        embeddings = []
        for sentence in sentences:
            ids = torch.zeros(TEXT_ROWS, dtype=torch.int32, device=self.device)
            known = tokenize(sentence)
            ids[: len(known)] = torch.tensor(known, dtype=torch.int32)
            embeddings.append(encoder(ids, (ids != 0).int()))
        return embeddings

    @torch.no_grad()
    def diffused(self, tokens: Tensor, settings: DiffusionSettings, seed: int = 0) -> Tensor:
        """Tokens [N, t, h, w] → uint8 [N, T, H, W, 3] by the diffusion decoder."""
        denoiser, latent_decoder = self._module("diffusion_denoiser"), self._module("latent_decoder")
        text = self.folder.default_text().float().to(self.device)

        def network(seen: Tensor) -> Predict:
            return lambda sample, timestep: denoiser(sample, timestep.float().to(self.device), seen, text)  # type: ignore[no-any-return]

        latents = [decode_tokens(network, world.int(), seed + i, settings) for i, world in enumerate(tokens)]
        return torch.stack([latent_decoder(latent) for latent in latents])

    def _module(self, name: str) -> torch.nn.Module:
        return load_module(NETWORKS[name], self.folder, torch.float32).to(self.device)


def positions(models: Models, count: int, seed: int, sheet: Path) -> dict[str, Any]:
    """Base model, nine frames: how often cars and ball are near where the truth has them at the last frame.

    Counted are things that the truth determines (no event comes) and that are found by colour in the true
    last frame, close to where they are.
    """
    chosen, clips = held_out(count, models.device, seed, events=0.0)
    tokens = models.tokenizers.tokens(clips.video)
    worlds, a_pass = models.generate("small", tokens[:, :2], [None] * count)
    pictures = models.pictures(worlds)
    tracks = scenes.tracks(chosen)
    glow = scenes.glow(chosen)[:, -1]
    result: dict[str, Any] = {"clips": count, "tokens_a_pass": round(a_pass, 2)}
    for name, palette, index in (
        ("lead", CAR_COLOURS, chosen.lead_colour),
        ("other", CAR_COLOURS, chosen.other_colour),
        ("ball", BALL_COLOURS, chosen.ball_colour),
    ):
        colours = torch.tensor(list(palette.values()))[index] / 255 * glow
        box = tracks[name].box[:, -1]
        truth = torch.stack([(box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2], dim=1)
        near, counted = 0, 0
        for i in tracks[name].visible[:, -1].nonzero().flatten().tolist():
            real = find(clips.video[i, -1], colours[i])
            if real is None or (real - truth[i]).norm() > NEAR * WIDTH:
                continue
            counted += 1
            found = find(pictures[i, -1], colours[i])
            near += found is not None and bool((found - truth[i]).norm() <= NEAR * WIDTH)
        result[name] = {"counted": counted, "near": near}
    counted, near = (sum(result[n][k] for n in ("lead", "other", "ball")) for k in ("counted", "near"))
    result["share_near"] = round(near / max(counted, 1), 3)
    _sheet([clips.video, pictures], 12).save(sheet)
    return result


def find(frame: Tensor, colour: Tensor) -> Tensor | None:
    """Middle (column, row) of what has a colour [3] in a uint8 frame [H, W, 3]; None if nothing has."""
    distance = (frame.float().cpu() / 255 - colour).norm(dim=-1)
    rows, columns = (distance < _LIKE).nonzero().unbind(1)
    if len(rows) < _FEWEST:
        return None
    return torch.stack([columns.float().median(), rows.float().median()]) + 0.5


def pictures_go_on(models: Models, count: int, seed: int, sheet: Path) -> None:
    """Base model, one picture: worlds for the eye, since many are right."""
    _, clips = held_out(count, models.device, seed, events=0.0)
    worlds, _ = models.generate("small", models.tokenizers.tokens(clips.video)[:, :1], [None] * count)
    _sheet([models.pictures(worlds)], count).save(sheet)


def prompts_decide(models: Models, count: int, seed: int, sheet: Path) -> dict[str, Any]:
    """Video2World: the same nine frames with two prompts that differ in one thing.

    A world does what its prompt says if it is nearer to the drawn truth of its own prompt than to the
    other's, where these two differ.
    """
    result: dict[str, Any] = {}
    rows: list[Tensor] = []
    for place, (name, one, other) in enumerate(_pairs(count, seed)):
        videos = [scenes.draw(variant.to(models.device)).video for variant in (one, other)]
        contexts = [models.tokenizers.tokens(video)[:, :2] for video in videos]
        right = 0
        for turn, variant in enumerate((one, other)):
            texts = models.texts(scenes.prompts(variant))
            worlds, _ = models.generate("small-video2world", contexts[turn], texts, seed=1000 * place)
            pictures = models.pictures(worlds)
            own, rival = (
                (pictures[:, _AFTER:].float() - video[:, _AFTER:].float()).square().mean(dim=(1, 2, 3, 4))
                for video in (videos[turn], videos[1 - turn])
            )
            right += int((own < rival).sum())
            rows += [videos[turn][:2], pictures[:2]]
        result[name] = round(right / (2 * len(one)), 3)
    _sheet(rows, 2).save(sheet)
    return result | {
        "prompts": 2 * count * len(result),
        "share": round(float(np.mean([*result.values()])), 3),
    }


def diffusion(models: Models, count: int, seed: int, sheet: Path) -> dict[str, Any]:
    """The diffusion decoder and the discrete one on the same true tokens, guidance as published."""
    chosen, clips = held_out(count, models.device, seed)
    settings = DiffusionSettings()
    tokens = models.tokenizers.tokens(clips.video)
    ways = {"discrete": models.pictures(tokens), "diffusion": models.diffused(tokens, settings)}
    _sheet([clips.video, *ways.values()], 8).save(sheet)
    made = {name: iter(pictures.split(1)) for name, pictures in ways.items()}
    return {
        name: judge(lambda video, way=way: (next(way), video[:, :1, 0, 0, 0]), chosen, clips, batch=1)  # type: ignore[misc]
        for name, way in made.items()
    }


def _pairs(count: int, seed: int) -> list[tuple[str, Scenes, Scenes]]:
    """For each kind of event, scenes that begin alike and go on in two ways."""
    calm = scenes.sample(20 * count, 2 * HELD_OUT + seed, events=0.0)
    driving = calm[(calm.speed > 0) & (calm.lead > 0) & (calm.brake == 0) & (calm.bend == 0)][:count]
    number = torch.arange(len(driving))
    overtaken = replace(
        driving,
        other=torch.full_like(driving.other, 2),
        other_speed=torch.full_like(driving.speed, 10.0),
        other_distance=torch.full_like(driving.speed, scenes.NEAREST - EVENT * 10),
    )
    kinds = len(CAR_COLOURS)
    return [
        (
            "light",
            replace(driving, light_after=(driving.light + 1) % 3),
            replace(driving, light_after=(driving.light + 2) % 3),
        ),
        (
            "turn",
            replace(driving, bend_after=torch.full_like(driving.bend, -0.009)),
            replace(driving, bend_after=torch.full_like(driving.bend, 0.009)),
        ),
        (
            "braking",
            replace(driving, brake=torch.full_like(driving.brake, 7.0), brake_time=driving.brake * 0 + EVENT),
            driving,
        ),
        (
            "colour",
            replace(overtaken, other_colour=number % kinds),
            replace(overtaken, other_colour=(number + 1 + number // kinds) % kinds),
        ),
    ]


def _raised(outcome: Any) -> Generation:
    if isinstance(outcome, BaseException):
        raise outcome
    assert isinstance(outcome, Generation)
    return outcome


def _sheet(ways: Sequence[Tensor], clips: int) -> Image.Image:
    """For each clip a row for each way: frames 8, 14, 20, 26 and 32."""
    rows = [
        np.concatenate([way[i, n].cpu().numpy() for n in (8, 14, 20, 26, 32)], axis=1)
        for i in range(min(clips, len(ways[0])))
        for way in ways
    ]
    return Image.fromarray(np.concatenate(rows))
