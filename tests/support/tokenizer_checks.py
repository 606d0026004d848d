"""Both tokenizers against the reference.

A file of kind `dv_tokenizer` holds cases `io.NAME.{video, encoder_out, prequant, codes, indices,
recon}` (or indices and recon alone) and `io.fsq.*`; `cv_tokenizer` holds `io.NAME.{video,
latent_raw, latent_normalized, recon}`, some cut into chunks that are encoded as a batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cosmos_triton.architectures import TokenizerArchitecture
from cosmos_triton.checkpoints.published import (
    CONTINUOUS_TOKENIZER_FAMILY,
    DISCRETE_TOKENIZER_FAMILY,
    PREFIX,
)
from cosmos_triton.networks.continuous_tokenizer import (
    ContinuousDecoder,
    ContinuousEncoder,
    LatentStatistics,
    load_continuous_decoder,
    load_continuous_encoder,
)
from cosmos_triton.networks.discrete_tokenizer import load_discrete_decoder, load_discrete_encoder
from cosmos_triton.networks.quantizer import FiniteScalarQuantizer
from support.parity_files import Content, ParityFile

PIXELS = 1e-5
LATENTS = 1e-5
ENCODED = ("video", "patcher_out", "encoder_out", "prequant")  # any of them makes a case of the encoder

_STATISTICS = "mean_std."


def check_discrete_tokenizer(file: ParityFile) -> None:
    architecture = tokenizer_architecture(file)
    encoder = load_discrete_encoder(architecture, tokenizer_weights(file), torch.float32)
    decoder = load_discrete_decoder(architecture, tokenizer_weights(file), torch.float32)
    encoded = {name for output in ENCODED for name in file.cases(output)}
    decoded = set(file.cases("recon"))
    assert encoded | decoded, f"{file.path.name} holds no case"
    with torch.inference_mode():
        for name in sorted(encoded):
            case = file.case(name)
            if "patcher_out" in case:
                patches = encoder.encoder.patch_embed(case["video"])
                assert_near(f"{name} patcher_out", patches, case["patcher_out"], LATENTS)
            if "encoder_out" in case:
                features = encoder.encoder(case["video"])
                assert_near(f"{name} encoder_out", features, case["encoder_out"], LATENTS)
            latents = encoder.latents(case["video"])
            assert_near(f"{name} prequant", latents, case["prequant"], LATENTS)
            assert torch.equal(encoder.quantizer.quantize(latents), case["codes"]), f"{name}: codes differ"
            assert torch.equal(encoder(case["video"]), case["indices"]), f"{name}: indices differ"
        for name in sorted(decoded):
            case = file.case(name)
            assert_near(f"{name} recon", decoder(case["indices"].int()), case["recon"], PIXELS)
        if file.case("fsq"):
            _check_quantizer(encoder.quantizer, file.case("fsq"))


def _check_quantizer(quantizer: FiniteScalarQuantizer, case: dict[str, Tensor]) -> None:
    assert torch.equal(quantizer.quantize(case["z"]), case["codes"]), "fsq: codes differ"
    assert torch.equal(quantizer.encode(case["z"]), case["indices"]), "fsq: indices differ"
    probes = quantizer.decode(case["probe_indices"].int().unsqueeze(-1)).squeeze(-1)
    assert torch.equal(probes, case["probe_codes"]), "fsq: codes of indices differ"


def check_codebook(file: ParityFile) -> None:
    """Every row of the published codebook buffer is the code of its index."""
    codebook = _stripped(file)["quantizer.implicit_codebook"].float()  # [N, C]
    count, channels = codebook.shape
    quantizer = FiniteScalarQuantizer(_levels(codebook))
    ids = torch.arange(count, dtype=torch.int32).reshape(1, 1, 1, count)
    assert torch.equal(quantizer.decode(ids).reshape(channels, count).T, codebook)
    assert torch.equal(quantizer.decode(ids).mul(quantizer.levels // 2).round().unique(), _digits(codebook))


def check_continuous_tokenizer(file: ParityFile) -> None:
    architecture = tokenizer_architecture(file)
    encoder = load_continuous_encoder(architecture, tokenizer_weights(file), torch.float32)
    decoder = load_continuous_decoder(architecture, tokenizer_weights(file), torch.float32)
    statistics = latent_statistics(file)
    outputs = ("video", "latent_raw", "latent_normalized", "recon")  # any of them makes a case
    names = sorted({name for output in outputs for name in file.cases(output)})
    assert names, f"{file.path.name} holds no case"
    with torch.inference_mode():
        for name in names:
            _check_continuous(name, file, encoder, decoder, statistics)
        for name in file.cases("latent_times_sigma_data"):
            latents = file.tensors[f"io.{name}.latent_times_sigma_data"] / 0.5
            videos = [t for n, t in file.case(name).items() if n.startswith("video")]
            assert len(videos) == 1, f"{file.path.name} lacks io.{name}.video"
            assert_near(f"{name} video", decoder(statistics.restore(latents)), videos[0], PIXELS)


def _check_continuous(
    name: str,
    file: ParityFile,
    encoder: ContinuousEncoder,
    decoder: ContinuousDecoder,
    statistics: LatentStatistics,
) -> None:
    case, chunk = file.case(name), file.meta["cases"][name]
    raw = encoder(_chunks(case["video"], chunk["pixel_chunk_duration"]))
    if "latent_raw" in case:
        assert_near(f"{name} latent_raw", _whole(raw), case["latent_raw"], LATENTS)
    normalised = _whole(statistics.normalise(raw))
    assert_near(f"{name} latent_normalized", normalised, case["latent_normalized"], LATENTS)
    latents = _chunks(case["latent_normalized"], chunk["latent_chunk_duration"])
    assert_near(f"{name} recon", _whole(decoder(statistics.restore(latents))), case["recon"], PIXELS)


def tokenizer_architecture(file: ParityFile) -> TokenizerArchitecture:
    """What the reference's configuration in the file's JSON describes."""
    config: dict[str, Any] = file.meta["config"]
    assert config["patch_method"] == "haar", f"patch method {config['patch_method']} is unknown"
    return TokenizerArchitecture(
        name=file.path.name,
        channels=config["channels"],
        channel_multipliers=tuple(config["channels_mult"]),
        residual_blocks=config["num_res_blocks"],
        attention_resolutions=tuple(config["attn_resolutions"]),
        resolution=config["resolution"],
        patch_size=config["patch_size"],
        z_channels=config["z_channels"],
        latent_channels=config["embedding_dim"] if "levels" in config else config["latent_channels"],
        spatial_compression=config["spatial_compression"],
        temporal_compression=config["temporal_compression"],
        fsq_levels=tuple(config["levels"]) if "levels" in config else None,
    )


def tokenizer_weights(file: ParityFile) -> dict[str, Tensor]:
    """The file's parameters, without buffers."""
    family = DISCRETE_TOKENIZER_FAMILY if file.kind == "dv_tokenizer" else CONTINUOUS_TOKENIZER_FAMILY
    named = file.weights(family)
    return {name: tensor for name, tensor in named.items() if not name.startswith(_STATISTICS)}


def latent_statistics(file: ParityFile) -> LatentStatistics:
    """mean_std.pt of a `cv_tokenizer` file."""
    mean, std = (_stripped(file)[f"{_STATISTICS}{place}"] for place in (0, 1))
    return LatentStatistics(mean, std, file.meta["config"]["latent_channels"])


def _stripped(file: ParityFile) -> Content:
    """All tensors, without the prefix that those of a checkpoint may have."""
    return Content(
        f"{file.path.name}.safetensors", {name.removeprefix(PREFIX): t for name, t in file.tensors.items()}
    )


def assert_near(what: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal shapes, and no element further apart than `tolerance`."""
    assert actual.shape == expected.shape, f"{what}: {list(actual.shape)} instead of {list(expected.shape)}"
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= tolerance, f"{what}: off by {error:.2g}, allowed {tolerance:.2g}"  # NaN fails too


def _chunks(video: Tensor, frames: int) -> Tensor:
    """[1, C, N frames, H, W] -> [N, C, frames, H, W]."""
    return torch.cat(video.split(frames, dim=2))


def _whole(chunks: Tensor) -> Tensor:
    """[N, C, frames, H, W] -> [1, C, N frames, H, W]."""
    return torch.cat(tuple(chunks.split(1)), dim=2)


def _levels(codebook: Tensor) -> tuple[int, ...]:
    return tuple(len(channel.unique()) for channel in codebook.unbind(1))


def _digits(codebook: Tensor) -> Tensor:
    """Every signed digit that occurs: codes times half their number of levels."""
    half = torch.tensor(_levels(codebook)) // 2
    return (codebook * half).round().unique()


CHECKS: dict[str, Callable[[ParityFile], None]] = {
    "dv_tokenizer": check_discrete_tokenizer,
    "dv_codebook": check_codebook,
    "cv_tokenizer": check_continuous_tokenizer,
}
