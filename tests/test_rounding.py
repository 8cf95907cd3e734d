"""Bounds on rounding hold for sums in any order, and fail where a term is missing or columns are shifted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.rounding import product_error

TESTS = Path(__file__).parent


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_bound_tells_rounding_from_a_fault(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(31, 200, generator=generator).to(dtype), torch.randn(17, 200, generator=generator).to(dtype)
    exact, bound = x.double() @ weight.double().t(), product_error(x, weight)
    for order in (range(200), reversed(range(200))):
        total = torch.zeros(31, 17)
        for term in order:
            total += x[:, term, None].float() * weight[:, term].float()
        assert ((total.to(dtype).double() - exact).abs() <= bound).all()
    missing = exact - x[:, :1].double() * weight[:, 0].double()
    shifted = exact.roll(1, dims=1)
    for wrong in (missing, shifted, 1.01 * exact):
        assert ((wrong.to(dtype).double() - exact).abs() > bound).any()


def test_files_that_use_these_bounds_are_marked_numerical() -> None:
    users = [path for path in TESTS.rglob("test_*.py") if "from tests.rounding import" in path.read_text("utf-8")]
    assert len(users) > 10
    # The interpreter of Triton computes with numpy and takes minutes.
    unmarked = [path.name for path in users if "interpreted" not in path.parts and not _is_marked(path)]
    assert unmarked == []


def _is_marked(path: Path) -> bool:
    return "pytest.mark.numerical" in path.read_text("utf-8")
