import torch

from cosmos_triton.autoregressive import plain


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_linear_does_not_depend_on_the_number_of_rows() -> None:
    x, weight = random(1, 33, 64), random(96, 64, seed=1)
    whole = plain.linear(x, weight)
    for rows in (1, 2, 3, 5, 8, 17):
        assert torch.equal(plain.linear(x[:, :rows], weight), whole[:, :rows])
        assert torch.equal(plain.project(x[:, :rows], weight), plain.project(x, weight)[:, :rows])
    torch.testing.assert_close(whole, x @ weight.T)


def test_gated_linear_gates_with_the_first_half() -> None:
    x, weight = random(2, 3, 16), random(40, 16, seed=1)
    expected = torch.nn.functional.silu(x @ weight[:20].T) * (x @ weight[20:].T)
    torch.testing.assert_close(plain.gated_linear(x, weight), expected)


def test_norm_rounds_before_it_scales() -> None:
    x, weight = random(1, 1, 64).bfloat16(), random(64, seed=1).bfloat16()
    scale = (x.float().square().mean() + 1e-5).rsqrt()
    residual, normed = plain.add_norm(x, (), weight, 1e-5)
    assert torch.equal(normed, (x.float() * scale).bfloat16() * weight)
    assert torch.equal(residual, x)


def test_attention_is_softmax_over_the_visible_rows_with_shared_kv_heads() -> None:
    query, keys, values = random(2, 3, 4, 8), random(5, 2, 10, 8, seed=1), random(5, 2, 10, 8, seed=2)
    last, slots = torch.tensor([[0, 4, 9], [1, 2, 3]]), torch.tensor([4, 1])
    actual = plain.attend(query, keys, values, last, slots)
    for b in range(2):
        for token in range(3):
            for head in range(4):
                k = keys[slots[b], head // 2, : last[b, token] + 1]
                v = values[slots[b], head // 2, : last[b, token] + 1]
                weights = (k @ query[b, token, head] / 8**0.5).softmax(0)
                expected = weights @ v
                torch.testing.assert_close(actual[b, token, head * 8 : head * 8 + 8], expected)


def test_rotation_turns_channel_pairs_half_a_head_apart() -> None:
    x, angles = random(8), random(4, seed=1)
    turned = plain.rotate(x, torch.cat([angles.cos(), angles.sin()]))
    pairs = torch.complex(x[:4], x[4:]) * torch.polar(torch.ones(4), angles)
    torch.testing.assert_close(turned, torch.cat([pairs.real, pairs.imag]))
