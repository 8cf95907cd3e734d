"""Dense projections as a Triton kernel: fp8 weights times fp8 rows, weights in all other formats times plain ones.

Signature of `reference/linear.py`. Shape legend: N rows, I input features, O output features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._linear import linear_kernel
from dgemma_kernels.packing.gpu import PackedWeight
from dgemma_kernels.tensors.formats import RowFormat, Rows, WeightFormat


def row_format(weight_format: WeightFormat) -> RowFormat:
    """Returns how dense projections want their activations: fp8 weights fp8 per token, all others plain."""
    return RowFormat.FP8_TOKEN if weight_format is WeightFormat.FP8 else RowFormat.PLAIN


def linear(
    rows: Rows, weight: PackedWeight, out_NO: Tensor | None = None, *, table: LaunchTable | None = None
) -> Tensor:
    """Returns `rows @ weight.T`, [N, O], in bf16 for fp8 rows and in the rows' dtype for plain ones.

    Args:
        rows: in `row_format(weight.format)`; contiguous. Four bits and int8 need bf16.
        weight: a dense one, [1, O, I].
        out_NO: where the result goes, contiguous and of its dtype; by default new memory.
        table: how to launch; by default the device's.

    Raises:
        ValueError: the formats do not go together.
    """
    if row_format(weight.format) is not rows.format:
        raise ValueError(
            f"{weight.format=} cannot multiply {rows.format=}; fp8 wants rows per token, others plain ones"
        )
    num_rows, num_inputs = rows.data_ND.shape
    dtype = torch.bfloat16 if rows.scale is not None else rows.data_ND.dtype
    if out_NO is None:
        out_NO = rows.data_ND.new_empty(num_rows, weight.num_outputs, dtype=dtype)
    assert out_NO.is_contiguous() and out_NO.dtype is dtype
    entry = (table or for_device(rows.data_ND.device)).of(f"linear.{weight.format}")
    num_programs = num_blocks(weight.num_outputs, entry["BLOCK_N"]) * num_blocks(num_rows, entry["BLOCK_T"])
    launch(
        linear_kernel, (num_programs,),
        rows.data_ND, rows.scale, weight.data, weight.scale, weight.row_scale_EO, out_NO, num_rows, num_inputs,
        weight.num_outputs, FORMAT=weight.format.value, MASKED=num_inputs % entry["BLOCK_K"] != 0,
        EVEN=weight.num_outputs % entry["BLOCK_N"] == 0, **entry,
    )  # fmt: skip
    return out_NO
