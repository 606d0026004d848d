import pytest
import torch

from cosmos_triton.residency.pinned import Pack
from cosmos_triton.residency.stream import BlockStream

CPU = torch.device("cpu")


@pytest.mark.parametrize("slots", [2, 3, 8])
def test_blocks_stream_in_a_circle(slots: int) -> None:
    packs = [Pack.of({"weight": torch.full((index + 1,), float(index))}) for index in range(5)]
    stream = BlockStream(packs, CPU, slots)
    with stream.present():
        for _ in range(3):
            for index in range(5):
                assert stream.take(index)["weight"].tolist() == [float(index)] * (index + 1)
                stream.give_back()
        with pytest.raises(RuntimeError, match="block 2 was taken when 0 was due"):
            stream.take(2)
