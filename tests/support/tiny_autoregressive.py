"""Random networks of a few thousand parameters, for tests of the network and of the engine."""

import torch

from cosmos_triton.architectures import AutoregressiveArchitecture, Yarn
from cosmos_triton.autoregressive import plain
from cosmos_triton.autoregressive.operations import Operations
from cosmos_triton.autoregressive.transformer import AutoregressiveTransformer, build
from cosmos_triton.checkpoints.published import autoregressive_shapes


def architecture(
    *,
    video2world: bool = False,
    vocabulary: int = 96,
    latent_shape: tuple[int, int, int] = (5, 4, 6),
    yarn: bool = False,
) -> AutoregressiveArchitecture:
    return AutoregressiveArchitecture(
        name="test",
        dim=48,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        ffn_dim=80,
        vocabulary=vocabulary,
        embedding_rows=vocabulary + 64 if video2world else vocabulary,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        latent_shape=latent_shape,
        yarn=Yarn((3, 4, 6), 4.0, 1.0, 2.0) if yarn else None,
        text_dim=24 if video2world else None,
        recommended_temperature=1.0,
        recommended_top_p=0.8,
    )


def weights(arch: AutoregressiveArchitecture, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under published names; logits spread by about 2."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in autoregressive_shapes(arch).items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name:
            tensors[name] = 1 + 0.1 * noise
        elif name == "tok_embeddings.weight":
            tensors[name] = noise
        else:
            tensors[name] = noise * shape[-1] ** -0.5 * (2 if name == "output.weight" else 1)
    return tensors


def network(
    arch: AutoregressiveArchitecture, seed: int = 0, operations: Operations = plain
) -> AutoregressiveTransformer:
    return build(arch, weights(arch, seed), dtype=torch.float32, device="cpu", operations=operations)
