"""Reference operations against formulas written out, in float64, on awkward shapes."""

from __future__ import annotations

import math

import pytest
import torch
from dgemma_kernels import reference

from tests.rounding import sum_error, unit_roundoff

pytestmark = pytest.mark.numerical

GENERATOR_SEED = 0


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(GENERATOR_SEED + len(shape)))


@pytest.mark.parametrize("shape", [(1, 1), (63, 123), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight = draw(*shape).to(dtype), draw(shape[-1]).to(dtype)
    out = reference.plain.rms_norm(x, weight, 1e-6)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    assert out.dtype == dtype
    error = unit_roundoff(dtype) + sum_error(shape[-1])
    assert (out.double() - exact).abs().max() <= error * exact.abs().max()


def test_rotary_rotates_pairs_and_leaves_other_dimensions() -> None:
    x = torch.tensor([1.0, 5.0, 0.0, 7.0]).view(1, 1, 1, 4)
    angles = torch.tensor([math.pi / 2, 0.0, math.pi / 2, 0.0]).view(1, 1, 4)
    out = reference.plain.apply_rotary(x, angles.cos(), angles.sin())
    assert torch.allclose(out.flatten(), torch.tensor([0.0, 5.0, 1.0, 7.0]), atol=1e-6)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_attention_has_scale_one_and_groups(heads: int, kv_heads: int) -> None:
    q, k, v = draw(1, heads, 3, 8), draw(1, kv_heads, 7, 8) * 0.5, draw(1, kv_heads, 7, 8)
    mask = torch.arange(7)[None, None, None] <= torch.tensor([0, 3, 6])[None, None, :, None]
    out = reference.plain.attention(q, k, v, mask)
    for head in range(heads):
        group = head // (heads // kv_heads)
        for query, last in enumerate((0, 3, 6)):
            scores = (k[0, group, : last + 1].double() @ q[0, head, query].double()).softmax(0)
            expected = scores @ v[0, group, : last + 1].double()
            # The error of the scores, which the softmax passes on to the weights, and that of the sum of values.
            error = sum_error(8) * float((k[0, group].abs() @ q[0, head, query].abs()).max()) + sum_error(7)
            assert (out[0, head, query].double() - expected).abs().max() <= 2 * error * v.abs().max()


@pytest.mark.parametrize(("tokens", "num_experts", "selected"), [(1, 1, 1), (63, 5, 2), (7, 16, 3)])
def test_experts_sum_the_chosen_ones(tokens: int, num_experts: int, selected: int) -> None:
    x, scores = draw(tokens, 12), draw(tokens, num_experts)
    gate_up, down = draw(num_experts, 20, 12), draw(num_experts, 12, 10)
    scale = torch.linspace(0.5, 2.0, num_experts)
    weights, indices = reference.plain.route(scores, scale, selected)
    out = reference.plain.experts(x, weights, indices, gate_up, down)
    dense = reference.plain.experts_densely(x, weights, indices, gate_up, down)
    # Two products in sequence, and twice their error between two implementations.
    error = 4 * sum_error(12) * float(down.abs().sum(-1).amax() * (gate_up.abs().sum(-1).amax() * x.abs().max()) ** 2)
    assert (out - dense).abs().max() <= error
    for token in range(tokens):
        probs = scores[token].double().softmax(0)
        chosen = probs.argsort(descending=True)[:selected]
        expected = torch.zeros(12, dtype=torch.float64)
        for expert in chosen.tolist():
            inner = gate_up[expert].double() @ x[token].double()
            gated = torch.nn.functional.gelu(inner[:10], approximate="tanh") * inner[10:]
            expected += probs[expert] / probs[chosen].sum() * scale[expert] * (down[expert].double() @ gated)
        assert (out[token].double() - expected).abs().max() <= error


def test_softcap_is_bounded_and_float32() -> None:
    out = reference.plain.softcap(torch.tensor([-1e6, 0.0, 3.0, 1e6], dtype=torch.bfloat16), 30.0)
    assert out.dtype == torch.float32
    assert torch.allclose(out, torch.tensor([-30.0, 0.0, 30 * math.tanh(0.1), 30.0]))


def test_experts_in_sixteen_bits_are_close() -> None:
    x, scores = draw(33, 32), draw(33, 8)
    gate_up, down = draw(8, 32, 32) * 0.2, draw(8, 32, 16) * 0.2
    weights, indices = reference.plain.route(scores, torch.ones(8), 2)
    exact = reference.plain.experts(x.double(), weights.double(), indices, gate_up.double(), down.double())
    out = reference.plain.experts(x.bfloat16(), weights, indices, gate_up.bfloat16(), down.bfloat16())
    assert out.dtype is torch.bfloat16
    assert (out.double() - exact).square().mean().sqrt() < 0.02 * exact.square().mean().sqrt()
