"""Weights quantised and dequantised: the error, and awkward shapes and values."""

from __future__ import annotations

import pytest
import torch
from dgemma_engine.errors import CheckpointError
from dgemma_engine.quantization.quantized_tensor import Encoding, QuantisedTensor, quantise

pytestmark = pytest.mark.numerical

# Relative root mean square error of normally distributed weights: that of the format, plus some slack.
LIMITS = {Encoding.INT8: 0.0065, Encoding.INT4: 0.1, Encoding.FP8: 0.03, Encoding.E2M1: 0.1}
# The largest distance of a weight from its level, as a share of the largest weight of its group.
WORST = {Encoding.INT8: 0.006, Encoding.INT4: 0.21, Encoding.FP8: 0.04, Encoding.E2M1: 0.18}
encodings = pytest.mark.parametrize("encoding", list(Encoding))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.02


@encodings
def test_error_is_within_the_limits_of_the_format(encoding: Encoding) -> None:
    weight = normal(96, 704)
    back = quantise(weight, encoding, name="w").dequantise(torch.float32)
    assert float((back - weight).norm() / weight.norm()) < LIMITS[encoding]


@encodings
@pytest.mark.parametrize("num_columns", [1, 2, 7, 15, 17, 63, 64, 65, 100, 704])
def test_error_of_every_width_is_within_the_limits_of_the_format(encoding: Encoding, num_columns: int) -> None:
    weight = normal(5, num_columns)
    packed = quantise(weight, encoding, name="w")
    back = packed.dequantise(torch.float32)
    assert back.shape == packed.shape == weight.shape
    assert float((back - weight).abs().max()) <= WORST[encoding] * float(weight.abs().max())


@encodings
def test_stack_of_experts_equals_its_experts(encoding: Encoding) -> None:
    weight = normal(3, 8, 100) * torch.tensor([1.0, 100.0, 1e-4])[:, None, None]
    stacked = quantise(weight, encoding, name="w")
    for i in range(3):
        alone = quantise(weight[i], encoding, name="w").dequantise(torch.float32)
        assert torch.equal(stacked.dequantise(torch.float32)[i], alone)
    chosen = stacked.select(torch.tensor([2, 0])).dequantise(torch.float32)
    assert torch.equal(chosen, stacked.dequantise(torch.float32)[[2, 0]])


@encodings
def test_short_formats_round_the_exact_value_once(encoding: Encoding) -> None:
    packed = quantise(normal(7, 100), encoding, name="w")
    exact = packed.dequantise(torch.float32)
    out = torch.full((7, 100), torch.nan, dtype=torch.bfloat16)
    assert packed.dequantise(torch.bfloat16, out=out) is out
    assert torch.equal(out, exact.to(torch.bfloat16))
    assert torch.equal(packed.dequantise(torch.float16), exact.to(torch.float16))


@encodings
@pytest.mark.parametrize("value", [0.0, -0.0])
def test_zeros_stay_zeros(encoding: Encoding, value: float) -> None:
    weight = normal(4, 80)
    weight[1] = value
    back = quantise(weight, encoding, name="w").dequantise(torch.float32)
    assert torch.equal(back[1], torch.zeros(80))
    assert bool((quantise(torch.full((4, 80), value), encoding, name="w").dequantise(torch.bfloat16) == 0).all())


@encodings
@pytest.mark.parametrize("value", [0.3, -7.0, 1e-30, 3e30])
def test_constant_rows_keep_their_value(encoding: Encoding, value: float) -> None:
    back = quantise(torch.full((4, 80), value), encoding, name="w").dequantise(torch.float32)
    assert float((back / value - 1).abs().max()) < 0.04


@encodings
def test_denormal_weights_stay_finite_and_tiny(encoding: Encoding) -> None:
    back = quantise(torch.full((2, 70), 1e-41), encoding, name="w").dequantise(torch.float32)
    assert float(back.abs().max()) < 1e-37


@encodings
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(encoding: Encoding, value: float) -> None:
    weight = normal(4, 80)
    weight[2, 5] = value
    with pytest.raises(CheckpointError, match=r"layers\.0\.o_proj: holds NaN or infinite weights; repair or download"):
        quantise(weight, encoding, name="layers.0.o_proj")


@encodings
def test_rows_and_concatenation_are_inverse(encoding: Encoding) -> None:
    whole = quantise(normal(6, 70), encoding, name="w")
    again = QuantisedTensor.concatenate([whole.rows(0, 2), whole.rows(2, 6)])
    assert torch.equal(again.dequantise(torch.float32), whole.dequantise(torch.float32))
    stacked = whole.unflatten_rows(3).dequantise(torch.float32)
    assert torch.equal(stacked, whole.dequantise(torch.float32).unflatten(0, (3, 2)))


def test_bits_per_weight_of_each_encoding() -> None:
    weight = normal(8, 704)
    bits = {encoding: quantise(weight, encoding, name="w").num_bytes * 8 / weight.numel() for encoding in Encoding}
    assert bits[Encoding.INT8] == 8.25
    assert bits[Encoding.INT4] == 4.25
    assert bits[Encoding.FP8] == pytest.approx(8, abs=0.03)
    assert bits[Encoding.E2M1] == pytest.approx(4.5, abs=0.05)


def test_e2m1_takes_the_nearest_level() -> None:
    levels = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    values = torch.linspace(-6, 6, 16 * 25)
    weight = values.view(25, 16).clone()
    weight[:, 0] = 6.0
    back = quantise(weight, Encoding.E2M1, name="w").dequantise(torch.float32)
    signed = torch.cat((-levels, levels))
    nearest = (weight[..., None] - signed).abs().min(-1).values
    assert torch.equal((back - weight).abs(), nearest)
