"""Dense projections as a Triton kernel: plain weights times plain rows, or fp8 weights times fp8 rows.

Signature of `reference_linear.py`. Shape legend: N rows, I input features, O output features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels._linear import linear_kernel
from dgemma_kernels.formats import RowFormat, Rows, WeightFormat
from dgemma_kernels.kernel_launch import launch, num_blocks
from dgemma_kernels.launch_table import LaunchTable, for_device
from dgemma_kernels.packing import PackedWeight

ROW_FORMATS = {WeightFormat.PLAIN: RowFormat.PLAIN, WeightFormat.FP8: RowFormat.FP8_TOKEN}


def linear(rows: Rows, weight: PackedWeight, *, table: LaunchTable | None = None) -> Tensor:
    """Returns `rows @ weight.T`, [N, O], in bf16 for fp8 rows and in the rows' dtype for plain ones.

    Args:
        rows: plain for a plain weight, fp8 per token for an fp8 weight; contiguous.
        weight: a dense one, [1, O, I].
        table: how to launch; by default the device's.

    Raises:
        ValueError: the formats do not go together.
    """
    if ROW_FORMATS.get(weight.format) is not rows.format:
        raise ValueError(
            f"{weight.format=} cannot multiply {rows.format=}; fp8 wants rows per token, others plain ones"
        )
    num_rows, num_inputs = rows.data_ND.shape
    dtype = torch.bfloat16 if rows.scale is not None else rows.data_ND.dtype
    out_NO = rows.data_ND.new_empty(num_rows, weight.num_outputs, dtype=dtype)
    entry = (table or for_device(rows.data_ND.device)).of(f"linear.{weight.format}")
    num_programs = num_blocks(weight.num_outputs, entry["BLOCK_N"]) * num_blocks(num_rows, entry["BLOCK_T"])
    launch(
        linear_kernel, (num_programs,),
        rows.data_ND, rows.scale, weight.data, weight.row_scale_EO, out_NO, num_rows, num_inputs, weight.num_outputs,
        MASKED=num_inputs % entry["BLOCK_K"] != 0, EVEN=weight.num_outputs % entry["BLOCK_N"] == 0, **entry,
    )  # fmt: skip
    return out_NO
