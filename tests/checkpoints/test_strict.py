"""Strict assignment."""

import pytest
import torch
from torch import Tensor, nn

from cosmos_triton.checkpoints.strict import assign_strictly
from cosmos_triton.errors import CheckpointError


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 2, bias=False)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("table", torch.ones(2), persistent=False)


def on_meta() -> Network:
    with torch.device("meta"):
        return Network()


def tensors() -> dict[str, Tensor]:
    return {
        "first.weight": torch.randn(3, 2),
        "first.bias": torch.randn(3),
        "second.weight": torch.randn(2, 3),
        "scale": torch.randn(2),
    }


def test_tensors_are_taken_as_they_are() -> None:
    network, given = on_meta(), tensors()
    assign_strictly(network, given, what="x.pt")
    assert all(network.state_dict()[name].data_ptr() == tensor.data_ptr() for name, tensor in given.items())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.table.is_meta, "what the file does not hold is left to the network"


def test_floating_point_is_cast_and_integers_are_not() -> None:
    network = on_meta()
    network.scale = torch.ones(2, dtype=torch.int64, device="meta")
    given = tensors() | {"scale": torch.tensor([1, 2])}
    assign_strictly(network, given, what="x.pt", dtype=torch.bfloat16)
    assert network.first.weight.dtype == torch.bfloat16
    assert torch.equal(network.first.weight, given["first.weight"].to(torch.bfloat16))
    assert network.scale.dtype == torch.int64


def test_all_problems_are_in_one_sentence() -> None:
    given = tensors()
    del given["first.bias"], given["scale"]
    given |= {"third.weight": torch.ones(1), "second.weight": torch.ones(3, 3)}
    with pytest.raises(CheckpointError) as caught:
        assign_strictly(on_meta(), given, what="x.pt")
    assert str(caught.value) == (
        "x.pt does not fit the network: 2 missing: scale, first.bias; 1 unexpected: third.weight; "
        "1 wrongly shaped: second.weight [3, 3] instead of [2, 3]"
    )


@pytest.mark.parametrize("given_name", ["first.weight", "second.weight"])
def test_tied_parameters_need_one_name_and_stay_tied(given_name: str) -> None:
    network = on_meta()
    network.second = nn.Linear(2, 3, bias=False, device="meta")
    network.second.weight = network.first.weight
    given = {name: tensor for name, tensor in tensors().items() if "weight" not in name}
    assign_strictly(network, given | {given_name: torch.ones(3, 2)}, what="x.pt")
    assert network.second.weight is network.first.weight
    with pytest.raises(CheckpointError, match=r"1 missing: first\.weight"):
        assign_strictly(network, given, what="x.pt")


def test_unaligned_tensors_are_aligned() -> None:
    raw = torch.zeros(1 + 4 * 6, dtype=torch.uint8)
    odd = torch.empty(0).set_(raw.untyped_storage()[1:]).reshape(3, 2)
    assert odd.data_ptr() % 4
    network = on_meta()
    assign_strictly(network, tensors() | {"first.weight": odd}, what="x.pt")
    assert network.first.weight.data_ptr() % 4 == 0
