"""Packed matrices against `F.linear`, with oneDNN's layout and without."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dgemma_kernels.packing import cpu, few_bits
from dgemma_kernels.packing.cpu import PackedGate, PackedMatrix
from dgemma_kernels.packing.few_bits import RowWeights, Unmerged
from dgemma_kernels.packing.tables import DenseTable, EightBitTable

from tests.four_bit_weights import evenly_spaced
from tests.rounding import LIKELY, gated_error, product_error, unit_roundoff

pytestmark = pytest.mark.numerical


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def within(out: torch.Tensor, exact: torch.Tensor, error: torch.Tensor) -> None:
    """Compares each value with its own bound, far below the error of a wrong column or a missing term."""
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


def merged_in_four_bits(dtype: torch.dtype) -> tuple[torch.Tensor, Unmerged]:
    """Returns a weight [96, 192] with an adapter of rank 5 merged into it; the base has 16 values in each group."""
    base = evenly_spaced(draw(96, 192) / 8).to(dtype)
    unmerged = Unmerged(base_OI=base, a_RI=draw(5, 192) / 8, b_OR=draw(96, 5) / 4)
    return (base.float() + unmerged.b_OR @ unmerged.a_RI).to(dtype), unmerged


def unmerged_error(x: torch.Tensor, unmerged: Unmerged) -> torch.Tensor:
    """Bounds the error of one row's product with a base in 4 bits, and factors in 8, [N, O]."""
    base, a, b = unmerged.base_OI, unmerged.a_RI, unmerged.b_OR
    # Scale and least value of a group have eight significant bits in bfloat16; inputs are not rounded to 8 bits.
    base_error = LIKELY * 2**-7 * base.double().abs().max() * x.double().norm(dim=1, keepdim=True)
    exact_levels, u = 2**20, unit_roundoff(torch.bfloat16)
    reduced = x.double() @ a.double().t()
    reduced_error = int8_error(x, a, exact_levels) + u * reduced.abs()
    added = reduced @ b.double().t()
    added_error = reduced_error @ b.double().abs().t() + int8_error(reduced, b, exact_levels) + u * added.abs()
    return base_error + added_error + 2 * u * (x.double() @ base.double().t()).abs()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("row", "num"), [(RowWeights.INT4, 1), (RowWeights.FEW_INT4, 1), (RowWeights.FEW_INT4, 4)])
def test_few_rows_read_the_base_of_a_merged_weight_and_the_factors(
    dtype: torch.dtype, int8: bool, row: RowWeights, num: int
) -> None:
    weight, unmerged = merged_in_four_bits(dtype)
    matrix = PackedMatrix(weight, row, int8=int8, unmerged=unmerged)
    if not PackedMatrix(unmerged.base_OI, RowWeights.INT4).few_bits.row_bits:
        pytest.skip("this torch has no copy for one row")
    assert matrix.few_bits.row_bits == 4 and matrix.few_bits.has_row_factors
    x = draw(num, 192).bfloat16()
    base = F.linear(x.double(), unmerged.base_OI.double())
    exact = base + x.double() @ (unmerged.b_OR.double() @ unmerged.a_RI.double()).t()
    error = unmerged_error(x, unmerged)
    assert ((matrix(x.to(dtype)).double() - exact).abs() <= error).all()
    assert ((base - exact).abs() > 2 * error).any()
    gate = PackedGate(weight[:48], weight[48:], "silu", row, int8=int8, unmerged=unmerged)
    parts = matrix(x.to(dtype)).double().chunk(2, 1)
    gated = gate(x.to(dtype)).double()
    assert (gated - F.silu(parts[0]) * parts[1]).abs().max() <= 16 * unit_roundoff(torch.bfloat16) * gated.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("row", "num"), [(RowWeights.INT4, 2), (RowWeights.FEW_INT4, 5)])
def test_more_rows_read_the_merged_weight(dtype: torch.dtype, row: RowWeights, num: int) -> None:
    weight, unmerged = merged_in_four_bits(dtype)
    matrix, x = PackedMatrix(weight, row, unmerged=unmerged), draw(num, 192).to(dtype)
    within(matrix(x), F.linear(x.double(), weight.double()), product_error(x, weight))


def test_one_row_reads_the_merged_weight_of_a_base_that_four_bits_do_not_hold() -> None:
    weight, unmerged = merged_in_four_bits(torch.bfloat16)
    other = Unmerged(base_OI=draw(96, 192).bfloat16(), a_RI=unmerged.a_RI, b_OR=unmerged.b_OR)
    found = PackedMatrix(weight, RowWeights.INT4, unmerged=other).few_bits
    alone = PackedMatrix(weight, RowWeights.INT4).few_bits
    assert not found.has_row_factors and found.row_bits == alone.row_bits != 4
    if found.row_bits:
        x = draw(1, 192).bfloat16()
        assert torch.equal(found(x), alone(x))


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


def int8_error(x: torch.Tensor, weight: torch.Tensor, levels: int) -> torch.Tensor:
    """Bounds the error of a product whose weights are rounded to 8 bits and inputs to so many levels, [N, O].

    Each rounds by half a step of its row: of N products of errors by chance, `LIKELY` times the root of the sum of
    their squares.
    """
    x_step, w_step = (t.double().abs().amax(1, keepdim=True) / most for t, most in ((x, levels), (weight, 127)))
    squares = (x_step / 2) ** 2 * weight.double().square().sum(1) + (w_step.T / 2) ** 2 * x.double().square().sum(
        1, keepdim=True
    )
    width = x.shape[1]
    return LIKELY * squares.sqrt() + width * x_step * w_step.T / 4 + product_error(x, weight)


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_in_eight_bits(dtype: torch.dtype, rows: int) -> None:
    x, weight, other = (draw(size, 192).to(dtype) / scale for size, scale in ((rows, 1), (96, 8), (96, 4)))
    # Rows of very different magnitude, each with its own scale.
    x *= torch.logspace(-3, 3, rows, dtype=torch.float32)[:, None].to(dtype)
    matrix, gate = PackedMatrix(weight, int8=True), PackedGate(weight, other, "silu", int8=True)
    levels = matrix.few_bits.input_levels
    if not levels:
        pytest.skip("this processor has no exact products in 8 bits")
    exact = F.linear(x.double(), weight.double())
    assert ((matrix(x).double() - exact).abs() <= int8_error(x, weight, levels)).all()
    assert float((matrix(x).double() - exact).abs().max()) > 0
    up, up_error = F.linear(x.double(), other.double()), int8_error(x, other, levels)
    # The slope of silu is at most 1.1.
    error = 1.1 * int8_error(x, weight, levels) * (up.abs() + up_error) + F.silu(exact).abs() * up_error
    error += 4 * unit_roundoff(dtype) * (F.silu(exact) * up).abs()
    assert ((gate(x).double() - F.silu(exact) * up).abs() <= error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_table_in_eight_bits(dtype: torch.dtype) -> None:
    """Each row rounds by half a step of its own scale; a row of zeros stays zero."""
    weight = (draw(9, 48) * torch.logspace(-3, 3, 9)[:, None]).to(dtype)
    weight[4] = 0
    rows, weights = torch.tensor([[8, 0, 4], [0, 8, 3]]), torch.rand(2, 9).to(dtype)
    dense, eight = DenseTable(weight), EightBitTable(weight)
    half_step = weight.double().abs().amax(1, keepdim=True) / 127 / 2
    assert dense(rows).dtype is eight(rows).dtype is torch.float32
    assert torch.equal(dense(rows), weight[rows].float())
    error = (eight(rows).double() - weight[rows].double()).abs()
    assert (error <= half_step[rows] * (1 + 4 * unit_roundoff(torch.float32))).all() and error.max() > 0
    exact = weights.double() @ weight.double()
    assert dense.weighted(weights).dtype is eight.weighted(weights).dtype is dtype
    within(dense.weighted(weights), exact, product_error(weights, weight.T))
    rounding = weights.double() @ half_step + product_error(weights, 2 * weight.T)
    assert ((eight.weighted(weights).double() - exact).abs() <= 2 * rounding).all()


@pytest.mark.parametrize(("largest", "levels"), [(2**15 - 1, 63), (2**13, 0)])
def test_inputs_have_as_many_levels_as_sums_allow(largest: int, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI instructions pairs of products are added in 16 bits, and saturate."""

    def overflowing(
        x_NI: torch.Tensor, packed: torch.Tensor, scales_O: torch.Tensor, _zeros: object, levels: int
    ) -> torch.Tensor:
        codes_NI = (x_NI * levels).round() + levels + 1
        pairs = (codes_NI[:, None] * packed.float()[None]).unflatten(-1, (-1, 2)).sum(-1)
        return (pairs.clamp(-largest - 1, largest).sum(-1) - (levels + 1) * packed.sum(1)) * scales_O / levels

    def as_it_is(codes: torch.Tensor, _shape: object) -> torch.Tensor:
        return codes

    monkeypatch.setattr(few_bits, "int8_product", overflowing)
    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", as_it_is, raising=False)
    found = few_bits._all_in_eight_bits(draw(8, 16))  # pyright: ignore[reportPrivateUsage]
    assert (0 if found is None else found[3]) == levels


@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, TypeError])
def test_without_products_in_eight_bits_the_copy_for_one_row_is_used(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise fault

    monkeypatch.setattr(few_bits, "int8_product", broken)
    x, weight = draw(3, 16).bfloat16(), draw(8, 16).bfloat16()
    matrix = PackedMatrix(weight, RowWeights.INT8, int8=True)
    assert not matrix.few_bits.input_levels
    within(matrix(x), F.linear(x.double(), weight.double()), product_error(x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("row", [RowWeights.INT8, RowWeights.INT4, RowWeights.FEW_INT4])
def test_one_row_keeps_its_inputs_beside_products_in_eight_bits(dtype: torch.dtype, row: RowWeights) -> None:
    """The copy of the weights for one row keeps their format; the inputs may be float32."""
    weight = draw(96, 192).to(dtype) / 8
    both, alone = PackedMatrix(weight, row, int8=True), PackedMatrix(weight, row)
    if not (both.few_bits.input_levels and both.few_bits.row_bits):
        pytest.skip("this processor has no exact products in 8 bits, or no copy for one row")
    x = draw(1, 192)
    assert both(x).dtype is torch.float32
    assert torch.equal(both(x), alone(x.to(dtype)).float())
    gate, gate_alone = PackedGate(weight, weight, "silu", row, int8=True), PackedGate(weight, weight, "silu", row)
    exact = gate_alone(x.to(dtype)).float()
    assert (gate(x) - exact).abs().max() <= 8 * unit_roundoff(dtype) * exact.abs().max()
