"""Packed matrices against `F.linear`, with oneDNN's layout and without."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dgemma_kernels.packing import cpu
from dgemma_kernels.packing.cpu import PackedGate, PackedMatrix

from tests.rounding import gated_error, product_error

pytestmark = pytest.mark.numerical


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def within(out: torch.Tensor, exact: torch.Tensor, error: torch.Tensor) -> None:
    """Compares each value with its own bound, which is far below what a wrong column or a missing term makes."""
    assert out.shape == exact.shape
    assert ((out.double() - exact).abs() <= error).all()
    assert float(error.max()) < 0.05 * float(exact.abs().max())


@pytest.fixture(params=["oneDNN", "plain"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def cannot(_weight_OI: torch.Tensor) -> None:
        return None

    if request.param == "plain":
        monkeypatch.setattr(cpu, "_pack", cannot)
    return request.param


@pytest.mark.parametrize("shape", [(1, 16, 8), (63, 123, 40), (32, 256, 1280)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products(layout: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, width, out = shape
    x, weight, other = (
        draw(rows, width).to(dtype),
        draw(out, width).to(dtype) / 8,
        draw(out, width).to(dtype) / 4,
    )
    exact = F.linear(x.double(), weight.double())
    within(PackedMatrix(weight)(x), exact, product_error(x, weight))
    gated = F.gelu(exact, approximate="tanh") * F.linear(x.double(), other.double())
    within(PackedGate(weight, other)(x), gated, gated_error(x, weight, other))


def test_rows_of_a_wider_tensor(layout: str) -> None:
    x, weight = draw(5, 48).bfloat16(), draw(8, 16).bfloat16()
    part = x[:, 16:32]
    within(PackedMatrix(weight)(part), F.linear(part.double(), weight.double()), product_error(part, weight))


@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, TypeError])
def test_falls_back_where_torch_cannot_pack(fault: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise fault

    monkeypatch.setattr(cpu, "_silu", broken)
    x, weight = draw(3, 16).bfloat16(), draw(8, 16).bfloat16()
    within(PackedMatrix(weight)(x), F.linear(x.double(), weight.double()), product_error(x, weight))


def test_falls_back_where_results_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x_NI: torch.Tensor, _packed: object) -> torch.Tensor:
        return F.linear(x_NI, weight) + 1

    monkeypatch.setattr(cpu, "_silu", wrong)
    weight = draw(8, 16).bfloat16()
    assert cpu._pack(weight) is None  # type: ignore[reportPrivateUsage]
