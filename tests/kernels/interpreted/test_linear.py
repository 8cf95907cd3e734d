"""Dense projections in every format, on awkward shapes."""

from __future__ import annotations

import pytest
import torch
from dgemma_kernels import reference
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops import linear
from dgemma_kernels.packing.gpu import pack_for_kernel
from dgemma_kernels.reference.quantization import quantise_rows, quantise_weight, restore_rows, restore_weight
from dgemma_kernels.tensors.formats import RowFormat, WeightFormat

from tests.kernels.interpreted.errors import assert_as_close, draw


@pytest.mark.parametrize(("num_rows", "inputs", "outputs"), [(1, 64, 32), (33, 100, 47), (16, 160, 64)])
@pytest.mark.parametrize("weight_format", [WeightFormat.PLAIN, WeightFormat.FP8])
def test_projection(
    num_rows: int, inputs: int, outputs: int, weight_format: WeightFormat, device: torch.device
) -> None:
    check(num_rows, inputs, outputs, weight_format, device)


@pytest.mark.parametrize(("num_rows", "inputs", "outputs"), [(1, 64, 32), (33, 192, 47)])
@pytest.mark.parametrize("weight_format", [WeightFormat.INT8, WeightFormat.INT4, WeightFormat.NVFP4])
def test_projection_in_groups(
    num_rows: int, inputs: int, outputs: int, weight_format: WeightFormat, device: torch.device
) -> None:
    check(num_rows, inputs, outputs, weight_format, device)


@pytest.mark.parametrize("weight_format", list(WeightFormat))
@pytest.mark.parametrize(("num_rows", "inputs"), [(1, 320), (33, 192)])
def test_inputs_split_among_programs(
    num_rows: int, inputs: int, weight_format: WeightFormat, device: torch.device
) -> None:
    table = for_device(device).changed({"linear": {"FILL": 20}})
    check(num_rows, inputs, 47, weight_format, device, table)


@pytest.mark.parametrize("fill", [0, 20])
@pytest.mark.parametrize("weight_format", [WeightFormat.INT8, WeightFormat.INT4])
def test_scales_loaded_ahead(fill: int, weight_format: WeightFormat, device: torch.device) -> None:
    changes = {f"linear.{weight_format}": {"AHEAD": 1, "FILL": fill}}
    check(33, 192, 47, weight_format, device, for_device(device).changed(changes))


@pytest.mark.parametrize("shares", [1, 3])
def test_shares_are_summed(shares: int, device: torch.device) -> None:
    parts, table = draw(shares, 7, 37).to(device), for_device(device)
    got, expected = (torch.full((7, 37), torch.nan, dtype=torch.bfloat16, device=device) for _ in range(2))
    assert linear.sum_splits(parts, got, 0.5, table=table) is got
    reference.linear.sum_splits(parts, expected, 0.5)
    assert_as_close(got, expected, parts.double().sum(0) * 0.5)


def test_inputs_that_no_share_divides(device: torch.device) -> None:
    for weight_format in (WeightFormat.PLAIN, WeightFormat.FP8):
        check(3, 130, 47, weight_format, device, for_device(device).changed({"linear": {"FILL": 9}}))


@pytest.mark.parametrize(
    ("inputs", "programs", "block", "fill", "expected"),
    [
        (2816, 44, 64, 0, (1, 2816)),
        (2816, 44, 64, 132, (3, 960)),
        (2816, 200, 64, 264, (1, 2816)),
        (4096, 44, 64, 264, (6, 704)),
        # More programs than blocks of inputs, and a shorter last share.
        (130, 1, 64, 100, (3, 64)),
        (100, 44, 64, 264, (2, 64)),
        (2112, 88, 128, 264, (3, 768)),
    ],
)
def test_shares_fill_the_gpu(inputs: int, programs: int, block: int, fill: int, expected: tuple[int, int]) -> None:
    assert linear.shares(inputs, programs, block=block, fill=fill) == expected


def check(
    num_rows: int,
    inputs: int,
    outputs: int,
    weight_format: WeightFormat,
    device: torch.device,
    table: LaunchTable | None = None,
) -> None:
    rows = quantise_rows(draw(num_rows, inputs).to(device).bfloat16(), linear.row_format(weight_format))
    weight = quantise_weight(draw(outputs, inputs, seed=1).to(device).bfloat16(), weight_format)
    exact = restore_rows(rows).double() @ restore_weight(weight).double().T
    packed, expected = pack_for_kernel(weight), reference.linear.linear(rows, weight)
    place = torch.full((num_rows, outputs), torch.nan, dtype=torch.bfloat16, device=device)
    assert linear.linear(rows, packed, place, table=table) is place
    for got in (linear.linear(rows, packed, table=table), place):
        assert got.dtype is torch.bfloat16
        assert_as_close(got, expected, exact)


def test_row_format_must_suit_the_weight(device: torch.device) -> None:
    rows = quantise_rows(draw(2, 64).to(device), RowFormat.FP8_GROUP)
    weight = pack_for_kernel(quantise_weight(draw(32, 64).to(device), WeightFormat.FP8))
    with pytest.raises(ValueError, match="cannot multiply"):
        linear.linear(rows, weight)
