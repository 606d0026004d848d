"""The stages' networks alone, in this process: seconds, memory, and the error of what is not exact.

    python -m benchmarks.networks --size full --output benchmarks/results/networks-full-h100.json
    python -m benchmarks.networks --size full --networks chunks    # memory and time of one diffusion step
    python -m benchmarks.networks --size full --networks host      # the stages beside the GPU

Weights are random with the published shapes; they cost what real ones cost. Errors between settings
are those of random weights.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.result import describe, finish, table
from cosmos_triton.architectures import (
    AUTOREGRESSIVE,
    CONTINUOUS_TOKENIZERS,
    DIFFUSION_DECODERS,
    DISCRETE_TOKENIZERS,
    TEXT_ENCODERS,
    TEXT_ROWS,
    DiffusionDecoderArchitecture,
)
from cosmos_triton.checkpoints import published
from cosmos_triton.demo import synthetic_clip
from cosmos_triton.diffusion import (
    Denoiser,
    DiffusionDenoiser,
    DiffusionSettings,
    denoise,
    initial_noise,
    load_diffusion_transformer,
    pad_by_reflection,
    timesteps,
)
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.guardrails import GuardrailSettings, load_video_guardrail
from cosmos_triton.media import encode_mp4
from cosmos_triton.networks import (
    LatentDecoder,
    LatentStatistics,
    VideoDecoder,
    VideoEncoder,
    load_continuous_decoder,
    load_discrete_decoder,
    load_discrete_encoder,
    load_text_encoder,
)
from cosmos_triton.pipeline import NETWORKS
from cosmos_triton.residency import Residency
from cosmos_triton.runtimes import PyTorchRuntime, blocks_of, example_inputs, use_compile_cache

_PROMPT_ROWS = 24


@dataclass(frozen=True)
class Size:
    """Which networks, and the size of video."""

    diffusion: str
    tokenizers: str  # prefix of both tokenizers' presets
    text: str
    geometry: VideoGeometry


SIZES = {
    "full": Size("7B", "", "t5-11b", AUTOREGRESSIVE["4B"].geometry),
    "tiny": Size("tiny", "tiny-", "tiny", AUTOREGRESSIVE["tiny"].geometry),
}


@dataclass(frozen=True)
class Machine:
    """Where to measure."""

    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """What the stages compute in here."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def synchronize(self) -> None:
        """Wait for work in flight."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], repeats: int) -> float:
        """Median of `repeats` after one that is not counted."""
        call()
        taken = []
        for _ in range(repeats):
            self.synchronize()
            began = time.perf_counter()
            call()
            self.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    def peak_gb(self, call: Callable[[], object]) -> float | None:
        """The most device memory that PyTorch held during `call`; None on a CPU."""
        if self.device.type != "cuda":
            return None
        self.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        self.synchronize()
        return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)

    def reserved_gb(self) -> float | None:
        """The most that PyTorch's allocator took from the card since the last `peak_gb` began."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_reserved(self.device) / 1e9, 2)


def random_tensors(shapes: Mapping[str, tuple[int, ...]], device: torch.device) -> dict[str, Tensor]:
    """Published shapes with values that keep signals in range: linear maps preserve variance."""
    generator = torch.Generator(device).manual_seed(0)

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1:
            return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, device=device)
        deviation = (
            1.0
            if "embed" in name and len(shape) == 2 and shape[0] > shape[1] * 64
            else (1 / math.sqrt(math.prod(shape[1:])))
        )
        if "adaLN_modulation.2" in name:
            deviation *= 0.3
        values = torch.empty(shape, device=device, dtype=torch.bfloat16)
        return values.normal_(0, deviation, generator=generator)

    return {name: make(name, shape) for name, shape in shapes.items()}


def ceilings(machine: Machine) -> dict[str, float]:
    """What the card does with one large copy and one large product, for comparison."""
    if machine.device.type != "cuda":
        return {}
    copy_s, in_s = copies(machine)
    a = torch.randn(8192, 8192, device=machine.device, dtype=torch.bfloat16)
    product_s = machine.seconds(lambda: a @ a, 10)
    return {
        "copy_tb_s": round(2 * 2**31 / copy_s / 1e12, 2),
        "pinned_to_device_gb_s": round(2**29 / in_s / 1e9, 1),
        "bf16_tflop_s": round(2 * 8192**3 / product_s / 1e12),
    }


def copies(machine: Machine) -> tuple[float, float]:
    """Seconds of 2 GiB from device to device, and of 0.5 GiB from pinned memory to the device."""
    source = torch.empty(2**31, dtype=torch.uint8, device=machine.device)
    target = torch.empty_like(source)
    host = torch.empty(2**29, dtype=torch.uint8, pin_memory=True)
    within = machine.seconds(lambda: target.copy_(source), 5)
    return within, machine.seconds(lambda: target[: 2**29].copy_(host, non_blocking=True), 5)


@dataclass(frozen=True)
class DiffusionInputs:
    """One video on its way through the diffusion network."""

    noise: Tensor  # [16, 8, H, W] float32
    tokens: Tensor  # [5, h, w] int32
    text: Tensor  # [512, C] float32

    @classmethod
    def random(cls, geometry: VideoGeometry, text_dim: int, device: torch.device) -> "DiffusionInputs":
        """Reproducible values."""
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(0, 64000, geometry.token_shape, generator=generator, dtype=torch.int32)
        text = torch.randn(TEXT_ROWS, text_dim, generator=generator)
        text[_PROMPT_ROWS:] = 0
        noise = initial_noise(0, (16, 8, *geometry.latent_plane))
        return cls(noise.to(device), tokens.to(device), text.to(device))


def diffusion(
    architecture: DiffusionDecoderArchitecture,
    geometry: VideoGeometry,
    machine: Machine,
    repeats: int,
    kernels: Path | None = None,
) -> dict[str, Any]:
    """One step of every setting, whole runs of the settings, and their errors against `exact`."""
    tensors = random_tensors(published.diffusion_decoder_shapes(architecture), machine.device)
    inputs = DiffusionInputs.random(geometry, architecture.text_dim, machine.device)
    result: dict[str, Any] = {"plain_eager": plain_step(architecture, tensors, inputs, machine)}
    latents: dict[str, Tensor] = {}
    cases = {
        "exact": (DiffusionSettings.preset("exact"), Residency.RESIDENT),
        "exact_offload": (DiffusionSettings.preset("exact"), Residency.OFFLOAD),
        "own_frames": (DiffusionSettings(frames="own"), Residency.RESIDENT),
        "fp8": (DiffusionSettings(precision="fp8"), Residency.RESIDENT),
        "reduced": (DiffusionSettings.preset("reduced"), Residency.RESIDENT),
        "reduced_offload": (DiffusionSettings.preset("reduced"), Residency.OFFLOAD),
    }
    # The weights wait on the host, so that each case's memory is its own.
    host = {name: tensor.cpu() for name, tensor in tensors.items()}
    del tensors
    for name, (settings, residency) in cases.items():
        table = kernels / f"{name}.txt" if kernels else None
        result[name], latents[name] = arranged_case(
            architecture, host, inputs, machine, repeats, settings, residency, table
        )
        if name != "exact":
            result[name]["relative_error"] = _relative_error(latents[name], latents["exact"])
        _say(f"diffusion {name}: {result[name]}")
    return result


def plain_step(
    architecture: DiffusionDecoderArchitecture,
    tensors: Mapping[str, Tensor],
    inputs: DiffusionInputs,
    machine: Machine,
) -> dict[str, Any]:
    """One step of the network as stated in `diffusion/transformer.py`, without compilation."""
    network = DiffusionDenoiser(load_diffusion_transformer(architecture, tensors, machine.dtype))
    network.to(machine.device)
    tokens = pad_by_reflection(inputs.tokens, DiffusionSettings().latent_frames)
    moment = torch.tensor([0.25], device=machine.device)

    def step() -> None:
        with torch.no_grad():
            network(inputs.noise, moment, tokens, inputs.text)

    result = {"step_s": round(machine.seconds(step, 1), 4), "peak_gb": machine.peak_gb(step)}
    _say(f"diffusion plain, eager: {result}")
    return result


def arranged_case(
    architecture: DiffusionDecoderArchitecture,
    tensors: Mapping[str, Tensor],
    inputs: DiffusionInputs,
    machine: Machine,
    repeats: int,
    settings: DiffusionSettings,
    residency: Residency,
    kernels: Path | None,
) -> tuple[dict[str, Any], Tensor]:
    """Times of one setting, and the latents of a whole run on the host."""
    began = time.perf_counter()
    denoiser = Denoiser(
        architecture,
        tensors,
        device=machine.device,
        dtype=machine.dtype,
        fp8=settings.precision == "fp8",
        residency=residency,
        compiled=machine.device.type == "cuda",
        chunks=settings.chunks,
    )
    denoiser.prepare(timesteps(settings))
    machine.synchronize()
    loaded = time.perf_counter()
    frames = settings.seen_frames(len(inputs.tokens))
    tokens = pad_by_reflection(inputs.tokens, frames)
    noise = inputs.noise[:, :frames]
    warm_up_s, step_s = one_step(denoiser, tokens, inputs.text, noise, machine, repeats, kernels)
    latents: list[Tensor] = []

    def run() -> None:
        with denoiser.present():
            video = denoiser.condition(tokens, inputs.text)
            latents[:] = [denoise(lambda x, t: denoiser(x, float(t), video), noise, settings)]

    run_began = time.perf_counter()
    peak_gb = machine.peak_gb(run)
    if not latents:
        run()
    machine.synchronize()
    run_s = time.perf_counter() - run_began
    result = {
        "step_s": round(step_s, 4),
        "run_s": round(run_s, 3),
        "load_s": round(loaded - began, 2),
        "warm_up_s": round(warm_up_s, 2),
        "peak_gb": peak_gb,
        "reserved_gb": machine.reserved_gb(),
    }
    return result, latents[0][:, : inputs.tokens.shape[0]].cpu()


def one_step(
    denoiser: Denoiser,
    tokens: Tensor,
    text: Tensor,
    noise: Tensor,
    machine: Machine,
    repeats: int,
    kernels: Path | None,
) -> tuple[float, float]:
    """Seconds of the first step (which compiles) and of the following ones; kernels' times to a file."""
    with denoiser.present():
        began = time.perf_counter()
        video = denoiser.condition(tokens, text)
        moment = timesteps(DiffusionSettings())[5]
        denoiser(noise, moment, video)
        machine.synchronize()
        first = time.perf_counter() - began
        step_s = machine.seconds(lambda: denoiser(noise, moment, video), repeats)
        if kernels is not None and machine.device.type == "cuda":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                denoiser(noise, moment, video)
                machine.synchronize()
            kernels.parent.mkdir(parents=True, exist_ok=True)
            kernels.write_text(
                profile.key_averages().table(
                    sort_by="cuda_time_total", row_limit=40, max_name_column_width=90
                )
            )
        return first, step_s


def steps_in_chunks(
    architecture: DiffusionDecoderArchitecture, geometry: VideoGeometry, machine: Machine, repeats: int
) -> dict[str, Any]:
    """One exact step with what follows attention in 1, 2 and 4 chunks: seconds, memory, difference."""
    shapes = published.diffusion_decoder_shapes(architecture)
    tensors = {name: tensor.cpu() for name, tensor in random_tensors(shapes, machine.device).items()}
    inputs = DiffusionInputs.random(geometry, architecture.text_dim, machine.device)
    moment = timesteps(DiffusionSettings())[5]
    result: dict[str, Any] = {}
    predictions: dict[int, Tensor] = {}
    for count in (1, 2, 4):
        denoiser = Denoiser(
            architecture,
            tensors,
            device=machine.device,
            dtype=machine.dtype,
            compiled=machine.device.type == "cuda",
            chunks=count,
        )
        with denoiser.present():
            video = denoiser.condition(
                pad_by_reflection(inputs.tokens, DiffusionSettings().latent_frames), inputs.text
            )
            step = partial(denoiser, inputs.noise, moment, video)
            predictions[count] = step().cpu()
            result[str(count)] = {
                "step_s": round(machine.seconds(step, repeats), 4),
                "peak_gb": machine.peak_gb(step),
                "reserved_gb": machine.reserved_gb(),
                "relative_error": _relative_error(predictions[count], predictions[1]),
            }
        _say(f"exact step, {count} chunks: {result[str(count)]}")
        del denoiser, video, step  # before the next one's weights arrive
    return result


def host_stages(geometry: VideoGeometry, repeats: int) -> dict[str, Any]:
    """The built-in face blur and the MP4 encoder: seconds of a drawn clip, and of noise, their worst case."""
    shape = (geometry.frames, geometry.height, geometry.width, 3)
    clips = {
        "clip": synthetic_clip(*shape[:3]),
        "noise": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
    }
    guardrail = load_video_guardrail(GuardrailSettings("built-in"))
    machine = Machine(torch.device("cpu"))
    result: dict[str, Any] = {}
    for name, frames in clips.items():
        result[name] = {
            "video_guardrail_s": round(machine.seconds(partial(guardrail.apply, frames), repeats), 3),
            "media_encoder_s": round(machine.seconds(partial(encode_mp4, frames), repeats), 3),
        }
        _say(f"host, {name}: {result[name]}")
    return result


def _relative_error(value: Tensor, reference: Tensor) -> float:
    return round(float((value - reference).norm() / reference.norm()), 5)


def measured(call: Callable[[], object], machine: Machine, repeats: int) -> dict[str, Any]:
    """Median seconds and peak memory of a call."""
    return {"seconds": round(machine.seconds(call, repeats), 4), "peak_gb": machine.peak_gb(call)}


def tokenizers(prefix: str, geometry: VideoGeometry, machine: Machine, repeats: int) -> dict[str, Any]:
    """The three convolutional stages."""
    discrete = DISCRETE_TOKENIZERS[f"{prefix}DV8x16x16"]
    continuous = CONTINUOUS_TOKENIZERS[f"{prefix}CV8x8x8"]
    dv = random_tensors(published.tokenizer_shapes(discrete), machine.device)
    cv = random_tensors(published.tokenizer_shapes(continuous), machine.device)
    mean, std = torch.zeros(16, 16), torch.ones(16, 16)
    decoder = load_continuous_decoder(continuous, cv, machine.dtype)
    modules = {
        "video_encoder": (discrete, VideoEncoder(load_discrete_encoder(discrete, dv, machine.dtype))),
        "video_decoder": (discrete, VideoDecoder(load_discrete_decoder(discrete, dv, machine.dtype))),
        "latent_decoder": (continuous, LatentDecoder(decoder, LatentStatistics(mean, std, 16))),
    }
    del dv, cv
    result = {}
    for name, (architecture, module) in modules.items():
        network = NETWORKS[name]
        examples = example_inputs(network, network.sizes(geometry, architecture))
        inputs = {key: value.to(machine.device) for key, value in examples.items()}
        runtime = PyTorchRuntime(module.eval(), tuple(inputs), network.output.name, machine.device)
        result[name] = measured(partial(runtime.run, inputs), machine, repeats)
        _say(f"{name}: {result[name]}")
    return result


def text_encoder(preset: str, machine: Machine, repeats: int) -> dict[str, Any]:
    """T5, resident and offloaded."""
    architecture, network = TEXT_ENCODERS[preset], NETWORKS["text_encoder"]
    inputs = example_inputs(network, {})
    result = {}
    for residency in Residency:
        tensors = random_tensors(published.text_encoder_shapes(architecture), machine.device)
        module = load_text_encoder(architecture, tensors, machine.dtype)
        del tensors
        runtime = PyTorchRuntime(
            module,
            tuple(inputs),
            network.output.name,
            machine.device,
            residency,
            blocks_of(network, module),
        )
        call = partial(runtime.run, inputs)
        result[str(residency)] = measured(call, machine, repeats)
        _say(f"text_encoder {residency}: {result[str(residency)]}")
        del call, runtime, module
    return result


def tables(result: Mapping[str, Any]) -> str:
    """One table for each group of networks."""
    groups = ("tokenizers", "text_encoder", "diffusion", "chunks", "host")
    return "\n\n".join(
        table([{group: name, **figures} for name, figures in result[group].items()])
        for group in groups
        if group in result
    )


def main() -> int:
    """Measure; progress goes to stderr, a table and the result as JSON to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="default %(default)s")
    parser.add_argument(
        "--networks",
        default="tokenizers,text,diffusion",
        help="comma-separated, of these and chunks, host (default %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="default %(default)s")
    parser.add_argument("--kernels", type=Path, help="folder for a table of GPU kernels per setting")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    machine = Machine(torch.device("cuda:0" if torch.cuda.is_available() else "cpu"))
    use_compile_cache()
    size = SIZES[arguments.size]
    chosen = arguments.networks.split(",")
    result: dict[str, Any] = {**describe("networks"), "size": arguments.size}
    result["ceilings"] = ceilings(machine)
    _say(f"ceilings: {result['ceilings']}")
    if "tokenizers" in chosen:
        result["tokenizers"] = tokenizers(size.tokenizers, size.geometry, machine, arguments.repeats)
    if "text" in chosen:
        result["text_encoder"] = text_encoder(size.text, machine, arguments.repeats)
    if "diffusion" in chosen:
        architecture = DIFFUSION_DECODERS[size.diffusion]
        result["diffusion"] = diffusion(
            architecture, size.geometry, machine, arguments.repeats, arguments.kernels
        )
    if "chunks" in chosen:
        result["chunks"] = steps_in_chunks(
            DIFFUSION_DECODERS[size.diffusion], size.geometry, machine, arguments.repeats
        )
    if "host" in chosen:
        result["host"] = host_stages(size.geometry, arguments.repeats)
    finish(tables(result), result, arguments.output)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
