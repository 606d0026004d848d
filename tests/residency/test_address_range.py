"""Memory that goes and comes back to the same addresses."""

import pytest
import torch

from cosmos_triton.residency.address_range import reserve

MEGABYTE = 2**20


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("nbytes", [1, 5000, 3 * MEGABYTE])
def test_addresses_stay_while_memory_comes_and_goes(device: str, nbytes: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    memory = reserve(nbytes, torch.device(device))
    assert memory.buffer.shape == (nbytes,)
    assert memory.buffer.device.type == device
    start = memory.buffer.data_ptr()
    memory.drop()  # nothing is there yet
    for value in (3, 4):
        memory.fill()
        memory.buffer.fill_(value)
        assert int(memory.buffer.sum(dtype=torch.int64)) == value * nbytes
        memory.drop()
    assert memory.buffer.data_ptr() == start


def test_dropped_pages_of_the_host_are_gone() -> None:
    memory = reserve(MEGABYTE, torch.device("cpu"))
    memory.fill()
    memory.buffer.fill_(7)
    memory.drop()
    assert not memory.buffer.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_reads_what_has_come_back_and_the_device_has_the_memory_in_between() -> None:
    nbytes = 256 * MEGABYTE
    memory = reserve(nbytes, torch.device("cuda", 0))
    total = torch.zeros((), dtype=torch.int64, device="cuda")
    memory.fill()
    memory.buffer.fill_(1)
    part = memory.buffer[-MEGABYTE:]
    total.copy_(part.sum(dtype=torch.int64))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total.copy_(part.sum(dtype=torch.int64))
    for value in (2, 5):
        present = torch.cuda.mem_get_info()[0]
        memory.drop()
        assert torch.cuda.mem_get_info()[0] - present >= nbytes
        memory.fill()
        memory.buffer.fill_(value)
        graph.replay()
        assert int(total) == value * MEGABYTE
    memory.drop()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_that_is_full_is_an_error_with_the_name_of_the_driver() -> None:
    memory = reserve(2**40, torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        memory.fill()
    memory.drop()
