"""The permitted error of a kernel: twice that of PyTorch in the same dtype, or the rounding error of a float32 sum."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.rounding import sum_error

# PyTorch's own error depends on the processor, and is 0 where a sum comes out exact; so the error of a float32 sum of
# as many terms as any of these tests adds is always allowed for.
SUM_ERROR = sum_error(512)


def assert_as_close(out: Tensor, same_dtype: Tensor, exact: Tensor, *, slack: float = SUM_ERROR) -> None:
    """Compares root mean square and maximum of both errors; `slack` is relative to the largest exact value."""
    assert out.shape == exact.shape
    assert torch.isfinite(out.float()).all()
    ours, theirs = (out.double() - exact.double()).abs(), (same_dtype.double() - exact.double()).abs()
    floor = slack * float(exact.double().abs().max().clamp(min=1e-6))
    assert float(ours.square().mean().sqrt()) <= 2 * float(theirs.square().mean().sqrt()) + floor
    assert float(ours.max()) <= 2 * float(theirs.max()) + floor


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Returns standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 31 * len(shape)))
