"""Quantised weights and rows: the rounding error, lossless packing, and refused input."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from dgemma_kernels.packing.gpu import E2M1_FACTOR, pack_for_kernel
from dgemma_kernels.reference.quantization import (
    FP4_MAGNITUDES,
    pack_nibbles,
    quantise_rows,
    quantise_weight,
    restore_rows,
    restore_weight,
    unpack_nibbles,
)
from dgemma_kernels.tensors.formats import RowFormat, Weight, WeightFormat

# Half a quantisation step, as a share of a group's largest magnitude.
LARGEST_ERROR = {WeightFormat.FP8: 1 / 28, WeightFormat.INT8: 0.006, WeightFormat.INT4: 0.08, WeightFormat.NVFP4: 0.2}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("weight_format", list(WeightFormat))
@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 192)])
def test_rounding_to_nearest(weight_format: WeightFormat, shape: tuple[int, ...]) -> None:
    weight = draw(*shape)
    stored = quantise_weight(weight, weight_format)
    restored = restore_weight(stored)
    assert (stored.num_outputs, stored.num_inputs) == shape[-2:]
    if weight_format is WeightFormat.PLAIN:
        assert torch.equal(restored, weight)
        return
    largest = weight.abs().amax(-1, keepdim=True)
    assert ((restored - weight).abs() <= LARGEST_ERROR[weight_format] * largest).all()
    again = restore_weight(quantise_weight(restored, weight_format))
    assert (again - restored).abs().max() <= 0.02 * largest.max()


@pytest.mark.parametrize("row_format", [RowFormat.FP8_TOKEN, RowFormat.FP8_GROUP])
def test_rows(row_format: RowFormat) -> None:
    x = draw(3, 128)
    x[0] = 0.0
    rows = quantise_rows(x, row_format)
    assert rows.format is row_format
    assert (restore_rows(rows) - x).abs().max() <= x.abs().max() / 28
    assert (restore_rows(rows)[0] == 0).all()


def test_even_columns_are_low_nibbles() -> None:
    packed = pack_nibbles(torch.tensor([[1, 15, 0, 7]], dtype=torch.uint8))
    assert packed.tolist() == [[0xF1, 0x70]]
    assert unpack_nibbles(packed).tolist() == [[1, 15, 0, 7]]


@pytest.mark.parametrize("weight_format", [WeightFormat.INT4, WeightFormat.NVFP4])
def test_packing_moves_codes_and_loses_none(weight_format: WeightFormat) -> None:
    stored = quantise_weight(draw(2, 3, 128), weight_format)
    packed = pack_for_kernel(stored)
    codes = unpack_nibbles(stored.data)
    for column in range(128):
        group, place = divmod(column, 64)
        words = packed.data[:, group, :, place % 16].to(torch.int32)
        assert torch.equal((words >> 4 * (place // 16)) & 15, codes[:, :, column].to(torch.int32))
    assert stored.scale is not None and packed.scale is not None
    if weight_format is WeightFormat.INT4:
        assert torch.equal(packed.scale, stored.scale.transpose(1, 2))
    else:
        assert torch.equal(packed.scale.float().flatten(1, 2), stored.scale.float().transpose(1, 2))
        assert stored.global_scale is not None and packed.row_scale_EO is not None
        assert torch.equal(packed.row_scale_EO, stored.global_scale.expand(2, 3) * E2M1_FACTOR)


def test_dense_matrix_is_one_expert() -> None:
    packed = pack_for_kernel(quantise_weight(draw(3, 64), WeightFormat.INT8))
    assert packed.data.shape == (1, 3, 64) and packed.scale is not None and packed.scale.shape == (1, 1, 3)


def test_e2m1_has_eight_magnitudes() -> None:
    codes = pack_nibbles(torch.arange(64, dtype=torch.uint8)[None] % 16)
    scale = torch.ones(1, 4).to(torch.float8_e4m3fn)
    weight = Weight(format=WeightFormat.NVFP4, data=codes, scale=scale, global_scale=torch.tensor([2.0]))
    values = restore_weight(weight)[0, :16]
    assert values[:8].tolist() == [2 * magnitude for magnitude in FP4_MAGNITUDES]
    assert values[9:].tolist() == [-2 * magnitude for magnitude in FP4_MAGNITUDES[1:]]


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of 64: keep this matrix"):
        quantise_weight(draw(3, 100), WeightFormat.INT4)
    with pytest.raises(ValueError, match="no multiple of 64: keep this matrix"):
        Weight(format=WeightFormat.INT8, data=torch.zeros(3, 100, dtype=torch.int8), scale=torch.ones(3, 1))


def test_scales_are_checked() -> None:
    data = torch.zeros(3, 64, dtype=torch.int8)
    with pytest.raises(ValueError, match="needs its scales"):
        Weight(format=WeightFormat.INT8, data=data)
    with pytest.raises(ValueError, match=r"must be \(3, 1\)"):
        Weight(format=WeightFormat.INT8, data=data, scale=torch.ones(3, 2))
    with pytest.raises(ValueError, match="global scale"):
        nibbles, scale = torch.zeros(3, 32, dtype=torch.uint8), torch.ones(3, 4)
        Weight(format=WeightFormat.NVFP4, data=nibbles, scale=scale)


def test_reference_operations_need_no_triton() -> None:
    modules = ["attention", "experts", "linear", "routing", "rows", "vocabulary", "quantization"]
    names = ", ".join(f"dgemma_kernels.reference.{module}" for module in modules)
    names += ", dgemma_kernels.packing.gpu, dgemma_kernels.launch.launch_table"
    code = f"import sys; sys.modules['triton'] = None; import {names}"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
