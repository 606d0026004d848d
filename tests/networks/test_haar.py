import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import CosmosPatchEmbed3d, CosmosUnpatcher3d

from cosmos_triton.networks.haar import HaarPatcher, HaarUnpatcher, haar_matrix


def test_the_matrix_is_exact_in_half_precision_and_its_own_inverse() -> None:
    matrix = haar_matrix(4)
    assert set(matrix.unique().tolist()) == {-1 / 64, 1 / 64}
    assert torch.equal(matrix.bfloat16().float(), matrix)
    assert torch.equal(matrix @ (64 * matrix.T), torch.eye(64))


def test_patching_equals_the_wavelet_form() -> None:
    video = torch.randn(2, 3, 9, 16, 24)
    torch.testing.assert_close(HaarPatcher(4)(video), CosmosPatchEmbed3d(4)(video), atol=1e-6, rtol=0)


def test_unpatching_equals_the_wavelet_form_and_undoes_patching() -> None:
    video = torch.randn(2, 3, 9, 16, 24)
    bands = HaarPatcher(4)(video)
    torch.testing.assert_close(HaarUnpatcher(4)(bands), video, atol=1e-5, rtol=0)
    torch.testing.assert_close(HaarUnpatcher(4)(bands), CosmosUnpatcher3d(4)(bands), atol=1e-5, rtol=0)


def test_constants_survive_building_on_the_meta_device() -> None:
    with torch.device("meta"):
        patcher = HaarPatcher(2)
    assert patcher.matrix.device.type == "cpu"


def test_a_patch_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="6 is not a power of two"):
        haar_matrix(6)
