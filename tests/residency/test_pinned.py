import pytest
import torch

from cosmos_triton.residency.pinned import Pack


def test_a_pack_keeps_names_types_shapes_and_values() -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randint(0, 9, (7,), dtype=torch.int32),
        "c": torch.randn(2, 4).to(torch.float8_e4m3fn),
        "d": torch.tensor(2.5, dtype=torch.bfloat16),
    }
    pack = Pack.of(tensors)
    copied = pack.views(pack.buffer.clone())
    assert list(copied) == list(tensors)
    for name, tensor in tensors.items():
        assert copied[name].dtype == tensor.dtype
        assert torch.equal(copied[name].float(), tensor.float())
        assert copied[name].data_ptr() % tensor.element_size() == 0


def test_a_pack_takes_no_more_than_its_tensors_need() -> None:
    pack = Pack.like({"a": torch.empty(1000, 1000), "b": torch.empty(3)})
    assert 4_000_012 <= pack.nbytes <= 4_000_012 + 256
    assert len(pack.pages) == pack.nbytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_pack_is_pinned_for_as_long_as_it_is_used() -> None:
    tensors = {"a": torch.randn(1000, 1000), "b": torch.arange(5)}
    for _ in range(20):  # each is likely to lie where the one before it did
        pack = Pack.of(tensors)
        assert pack.buffer.is_pinned()
        views = pack.views(pack.buffer)
        del pack
        for name, tensor in tensors.items():
            assert views[name].is_pinned()
            assert torch.equal(views[name].to("cuda", non_blocking=True).cpu(), tensor)
        del views
