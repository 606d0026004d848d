import torch

from cosmos_triton.networks.quantizer import FiniteScalarQuantizer

LEVELS = (8, 8, 8, 5, 5, 5)


def test_every_id_survives_the_round_trip() -> None:
    quantizer = FiniteScalarQuantizer(LEVELS)
    ids = torch.arange(64000, dtype=torch.int32).reshape(1, 1, 1, -1)
    codes = quantizer.decode(ids)
    assert codes.shape == (1, 6, 1, 1, 64000)
    assert (codes.min(), codes.max()) == (-1, 1)
    digits = codes * (quantizer.levels // 2) + quantizer.levels // 2
    assert torch.equal((digits * quantizer.basis).sum(1).int(), ids)


def test_id_0_is_the_lowest_corner() -> None:
    codes = FiniteScalarQuantizer(LEVELS).decode(torch.zeros(1, 1, 1, 1, dtype=torch.int32))
    assert codes.flatten().tolist() == [-1.0] * 6


def test_ids_and_codes_agree() -> None:
    quantizer = FiniteScalarQuantizer(LEVELS)
    latent = 3 * torch.randn(2, 6, 2, 3, 4)
    ids = quantizer.encode(latent)
    assert ids.dtype == torch.int32
    assert torch.equal(quantizer.decode(ids), quantizer.quantize(latent))


def test_half_precision_modules_quantize_in_float32() -> None:
    quantizer = FiniteScalarQuantizer(LEVELS).to(torch.bfloat16)
    latent = torch.randn(1, 6, 2, 8, 8).bfloat16()
    assert torch.equal(quantizer.encode(latent), FiniteScalarQuantizer(LEVELS).encode(latent.float()))
