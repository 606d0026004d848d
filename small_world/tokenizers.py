"""Training and judging the two tokenizers."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cosmos_triton.architectures import TokenizerArchitecture
from small_world.autoencoder import TrainableTokenizer, initialise
from small_world.pool import ClipPool, FilmedPool, held_out
from small_world.scenes import BALL, CAR, LIGHTS, Clips, Scenes

OBJECTS, EDGES, MOTION = 1.0, 0.25, 0.1  # weights of the terms beside the error of the whole picture
LATENT_NOISE = 0.05  # of the continuous latents' deviation
STATISTICS_CLIPS = 2000

Again = Callable[[Tensor], tuple[Tensor, Tensor]]
_FLOOR = 1e-5  # of a mean square error, of pixels in [-1, 1]: 56 dB


class TokenizerStage:
    """What the training loop needs to know about a tokenizer.

    Args:
        architecture: which.
        batch: clips a step.
        pool: where the clips come from.
        refresh: steps between two refreshes of the pool.
        test_clips: held-out clips that the result is judged on.
        seed: of the weights.
        start: a trained tokenizer to go on from; None begins with random weights.
    """

    captured = True

    def __init__(
        self,
        architecture: TokenizerArchitecture,
        *,
        device: torch.device,
        batch: int = 16,
        pool: ClipPool | FilmedPool,
        refresh: int = 16,
        test_clips: int = 200,
        seed: int = 0,
        start: TrainableTokenizer | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.device = device
        self.network = (start or TrainableTokenizer(architecture)).to(device).requires_grad_(True)
        self.pool = pool
        self.refresh = refresh
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.index = torch.zeros(batch, dtype=torch.int64, device=device)
        self.network.measure_scale(_signed(self.pool.video[:batch]))
        if start is None:
            initialise(self.network)
        self.test_clips = test_clips

    def next_batch(self, step: int) -> None:
        """Choose the clips of a step."""
        if step % self.refresh == self.refresh - 1:
            self.pool.refresh()
        self.index.random_(self.pool.size)

    def loss(self) -> tuple[Tensor, Tensor]:
        """The loss of the chosen clips, and what is logged: [3] whole, objects, latents' deviation."""
        clips = self.pool.batch(self.index)
        video = _signed(clips.video)
        latents = self.network.encode(video, self.dtype)
        if self.network.architecture.fsq_levels is not None:
            codes, extra = self.network.quantize(latents), 0.0
        else:
            spread = latents.detach().std()
            codes = latents + LATENT_NOISE * spread * torch.randn_like(latents)
            extra = 1e-4 * latents.square().mean()
        decoded = self.network.decode(codes, self.dtype)
        errors = _errors(decoded, video, clips.labels)
        whole, objects, edges, motion = errors.unbind(1)
        there = (objects > 0).float()
        of_objects = (torch.log(objects + _FLOOR) * there).sum() / there.sum().clamp(min=1)
        logs = [torch.log(error + _FLOOR).mean() for error in (whole, edges, motion)]
        loss = logs[0] + OBJECTS * of_objects + EDGES * logs[1] + MOTION * logs[2] + extra
        return loss, torch.stack([logs[0], of_objects, latents.detach().std()])

    def log(self, values: list[float]) -> dict[str, float]:
        """The logged numbers by name, in decibels where they are errors."""
        return {"psnr": _decibels(values[0]), "objects": _decibels(values[1]), "deviation": values[2]}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Measures on held-out clips, with the weights as they are stored."""
        assert isinstance(network, TrainableTokenizer)
        chosen, clips = held_out(self.test_clips, self.device)
        kept = stored(network)
        return judge(lambda video: reconstruct(kept, video), chosen, clips, kept.architecture.codebook_size)

    def result(self, network: nn.Module) -> dict[str, Tensor]:
        """Weights as they are stored: bf16, by the modules' names."""
        assert isinstance(network, TrainableTokenizer)
        return {name: value.to("cpu", torch.bfloat16) for name, value in _folded(network).named_parameters()}


def stored(network: TrainableTokenizer) -> TrainableTokenizer:
    """A copy with the weights that a checkpoint holds: folded, rounded to bf16, computed in float32."""
    network = _folded(network)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return network


@torch.no_grad()
def latent_statistics(network: TrainableTokenizer, video: Tensor, batch: int = 8) -> dict[str, Tensor]:
    """`mean` and `std` of raw latents of uint8 video [N, T, H, W, 3]: [C, t] each, bf16 on the CPU."""
    latents = torch.cat([network.encode(_signed(clips)) for clips in video.split(batch)])
    spread, mean = torch.std_mean(latents, dim=(0, 2, 3))  # [N, t, h, w, C] -> [t, C]
    return {"mean": mean.T.to("cpu", torch.bfloat16), "std": spread.T.to("cpu", torch.bfloat16)}


@torch.no_grad()
def reconstruct(network: TrainableTokenizer, video: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, T, H, W, 3] → its reconstruction as the project writes it, and tokens or raw latents."""
    latents = network.encode(_signed(video))
    codes, shown = latents, latents
    if network.architecture.fsq_levels is not None:
        codes, shown = network.quantize(latents), network.tokens(latents)
    decoded = network.decode(codes)
    return ((1 + decoded.clamp(-1, 1)) / 2 * 255).floor().to(torch.uint8), shown


def judge(again: Again, chosen: Scenes, clips: Clips, codebook: int = 0, batch: int = 8) -> dict[str, Any]:
    """PSNR of whole clips, of cars and ball, of first frames and by light; codes used and their entropy.

    Args:
        again: uint8 [N, T, H, W, 3] → its reconstruction, and tokens or latents.
        chosen: the scenes of the clips.
        codebook: number of different tokens; 0 for a continuous tokenizer.
    """
    whole, objects, first, shown, sharpness = [], [], [], [], []
    for i in range(0, len(chosen), batch):
        video, labels = clips.video[i : i + batch], clips.labels[i : i + batch]
        copy_, codes = again(video)
        error = (copy_.float() - video.float()).square().mean(-1) / 255**2  # [N, T, H, W]
        inside = ((labels == CAR) | (labels == BALL)).float()
        whole.append(error.mean(dim=(1, 2, 3)))
        first.append(error[:, 0].mean(dim=(1, 2)))
        objects.append((error * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)))
        shown.append(codes)
        sharpness.append(torch.stack([_gradient(copy_), _gradient(video)], dim=1))
    errors, of_first, of_objects = (torch.cat(e).cpu() for e in (whole, first, objects))
    there = of_objects.isfinite()
    sharp, true = torch.cat(sharpness).mean(0).tolist()
    result = {
        "clips": len(chosen),
        "psnr": _psnr(errors),
        "psnr_objects": _psnr(of_objects[there]),
        "psnr_first_frame": _psnr(of_first),
        "psnr_by_light": {
            light: _psnr(errors[chosen.light == i])
            for i, light in enumerate(LIGHTS)
            if (chosen.light == i).any()
        },
        "gradient": round(sharp, 3),
        "gradient_of_truth": round(true, 3),
    }
    if codebook:
        counts = torch.cat(shown).flatten().bincount(minlength=codebook).float()
        shares = counts[counts > 0] / counts.sum()
        result |= {"codes_used": len(shares), "entropy_nats": float(-(shares * shares.log()).sum())}
    return result


def _gradient(video: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of each uint8 clip, in levels: [N]."""
    across, down = (video.float().diff(dim=d).abs().mean(dim=(1, 2, 3, 4)) for d in (3, 2))
    return (across + down) / 2


def _psnr(errors: Tensor) -> float:
    """Mean of the clips' PSNR in dB, of mean square errors of pixels in [0, 1]."""
    return float((-10 * errors.clamp(min=1e-10).log10()).mean())


def _decibels(log_error: float) -> float:
    """PSNR of a mean log of squared errors of pixels in [-1, 1]."""
    return 6.0206 - 4.342945 * log_error


def _signed(video: Tensor) -> Tensor:
    return video.float() / 127.5 - 1


def _folded(network: TrainableTokenizer) -> TrainableTokenizer:
    network = copy.deepcopy(network)
    network.fold()
    return network.requires_grad_(False)


def _errors(decoded: Tensor, video: Tensor, labels: Tensor) -> Tensor:
    """Mean square errors of each clip: [B, 4] whole, cars and ball, differences in space, in time."""
    error = decoded - video
    square = error.square().mean(-1)  # [B, T, H, W]
    inside = (labels >= CAR).float()
    objects = (square * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp(min=1)
    across, down, later = error.diff(dim=3), error.diff(dim=2), error.diff(dim=1)
    edges = (across.square().mean(dim=(1, 2, 3, 4)) + down.square().mean(dim=(1, 2, 3, 4))) / 2
    return torch.stack(
        [square.mean(dim=(1, 2, 3)), objects, edges, later.square().mean(dim=(1, 2, 3, 4))], dim=1
    )


def compile_all() -> None:
    """Compile the loss."""
    global _errors
    _errors = torch.compile(_errors, dynamic=False)
