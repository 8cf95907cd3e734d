"""How far a result may be from the exact one by rounding alone: bounds that hold on every processor.

A bound is made of the number format's unit roundoff and of the magnitudes that were added, never of what one machine
computed. Sums of K products, in whatever order, err by at most K u times the sum of magnitudes, and by LIKELY sqrt(K) u
times it with a probability of 1 - 2 exp(-LIKELY**2 / 2) for each value (Higham and Mary 2019, theorem 2.4).

Shape legend: N rows, I input width, O output width.
"""

from __future__ import annotations

import torch
from torch import Tensor

# 3e-8 is the share of values that may be further off.
LIKELY = 6.0
# The error of tanh in float32, in units of roundoff: libraries approximate it by polynomials.
TANH = 8.0
# Factors by which the layers of a model grow a rounding error: random weights, and those of the embedded model.
RANDOM_GROWTH, TRAINED_GROWTH = 100.0, 10.0


def unit_roundoff(dtype: torch.dtype) -> float:
    """Returns the largest relative error of rounding to the nearest number of a format."""
    return torch.finfo(dtype).eps / 2


def sum_error(num_terms: int) -> float:
    """Returns the relative error of a float32 sum of products, of the sum of their magnitudes."""
    return min(float(num_terms), LIKELY * num_terms**0.5) * unit_roundoff(torch.float32)


def model_error(hidden_size: int, growth: float = RANDOM_GROWTH) -> float:
    """Returns the error of the hidden states or logits of a float32 model, of the largest value."""
    return growth * sum_error(hidden_size)


def product_error(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """Bounds the error of `x @ weight.T` that is summed in float32 and rounded to `x`'s dtype, [N, O], float64."""
    magnitude_NO = x_NI.double().abs() @ weight_OI.double().abs().t()
    exact_NO = x_NI.double() @ weight_OI.double().t()
    return sum_error(x_NI.shape[1]) * magnitude_NO + unit_roundoff(x_NI.dtype) * exact_NO.abs()


def gated_error(x_NI: Tensor, gate_OI: Tensor, up_OI: Tensor) -> Tensor:
    """Bounds the error of `gelu_tanh(x @ gate.T) * (x @ up.T)` whose parts are rounded to `x`'s dtype, [N, O]."""
    gate_NO, up_NO = x_NI.double() @ gate_OI.double().t(), x_NI.double() @ up_OI.double().t()
    u, gelu_NO = unit_roundoff(x_NI.dtype), torch.nn.functional.gelu(gate_NO, approximate="tanh")
    # The slope of gelu is below 1.13 everywhere.
    gelu_error_NO = 1.13 * product_error(x_NI, gate_OI) + u * gelu_NO.abs()
    gelu_error_NO += TANH * unit_roundoff(torch.float32) * gate_NO.abs()
    up_error_NO = product_error(x_NI, up_OI)
    errors_NO = gelu_error_NO * up_NO.abs() + gelu_NO.abs() * up_error_NO + gelu_error_NO * up_error_NO
    return errors_NO + u * (gelu_NO * up_NO).abs()
