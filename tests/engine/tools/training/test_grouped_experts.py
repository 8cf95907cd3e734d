"""The grouped experts for training on a GPU equal the reference's, gradients included."""

from __future__ import annotations

import pytest
import torch
from dgemma_engine.tools.training.optimization.grouped_experts import experts_grouped
from dgemma_kernels import reference

pytestmark = pytest.mark.numerical


def test_sum_and_gradients_equal_the_references() -> None:
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.3).bfloat16().requires_grad_()

    x_ND, gate_up_E2ID, down_EDI = leaf(24, 32), leaf(4, 32, 32), leaf(4, 32, 16)
    # Expert 2 gets no token.
    indices_NK = torch.tensor([[0, 1], [1, 3], [3, 0]]).repeat(8, 1)
    weights_NK = torch.rand(24, 2, generator=generator).requires_grad_()
    leaves = (x_ND, weights_NK, gate_up_E2ID, down_EDI)

    wanted = reference.plain.experts_by_group(x_ND, weights_NK, indices_NK, gate_up_E2ID, down_EDI)
    got = experts_grouped(x_ND, weights_NK, indices_NK, gate_up_E2ID, down_EDI)
    direction_ND = torch.randn(24, 32, generator=generator)
    torch.testing.assert_close(got.float(), wanted.float(), atol=2e-2, rtol=2e-2)
    for grad, other in zip(
        torch.autograd.grad((got * direction_ND).sum(), leaves),
        torch.autograd.grad((wanted * direction_ND).sum(), leaves),
        strict=True,
    ):
        assert (grad - other).float().norm() <= 2e-2 * other.float().norm()
