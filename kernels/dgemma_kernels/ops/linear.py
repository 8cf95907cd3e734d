"""Dense projections as a Triton kernel: fp8 weights times fp8 rows, weights in all other formats times plain ones.

Few rows make few programs. Where the launch table's `FILL` asks for more than there are, the inputs are split among
them (split-K), and the shares are summed in order by a second kernel. Signature of `reference/linear.py`. Shape legend:
N rows, I input features, O output features, S shares of the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._linear import linear_kernel, sum_splits_kernel
from dgemma_kernels.packing.gpu import PackedWeight
from dgemma_kernels.tensors.formats import RowFormat, Rows, WeightFormat


def row_format(weight_format: WeightFormat) -> RowFormat:
    """Returns the format of a dense projection's activations: fp8 weights take fp8 per token, all others plain ones."""
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
            f"{weight.format=} cannot multiply {rows.format=}; fp8 needs rows per token, others plain ones"
        )
    num_rows, num_inputs = rows.data_ND.shape
    dtype = torch.bfloat16 if rows.scale is not None else rows.data_ND.dtype
    if out_NO is None:
        out_NO = rows.data_ND.new_empty(num_rows, weight.num_outputs, dtype=dtype)
    assert out_NO.is_contiguous() and out_NO.dtype is dtype
    table = table or for_device(rows.data_ND.device)
    entry = dict(table.of(f"linear.{weight.format}"))
    num_programs = num_blocks(weight.num_outputs, entry["BLOCK_N"]) * num_blocks(num_rows, entry["BLOCK_T"])
    num_splits, share = shares(num_inputs, num_programs, block=entry["BLOCK_K"], fill=entry.pop("FILL"))
    partial_SNO = None
    if num_splits > 1:
        partial_SNO = rows.data_ND.new_empty(num_splits, num_rows, weight.num_outputs, dtype=torch.float32)
    launch(
        linear_kernel, (num_programs, num_splits),
        rows.data_ND, rows.scale, weight.data, weight.scale, weight.row_scale_EO, out_NO, partial_SNO, num_rows,
        num_inputs, weight.num_outputs, share, FORMAT=weight.format.value, MASKED=num_inputs % entry["BLOCK_K"] != 0,
        EVEN=weight.num_outputs % entry["BLOCK_N"] == 0, **entry,
    )  # fmt: skip
    return out_NO if partial_SNO is None else sum_splits(partial_SNO, out_NO, 1.0, table=table)


def shares(num_inputs: int, num_programs: int, *, block: int, fill: int) -> tuple[int, int]:
    """Returns into how many shares a product's inputs are split, and how many inputs each adds, whole blocks of them.

    Args:
        num_inputs: I.
        num_programs: of the product that is not split.
        block: inputs that a program reads at once.
        fill: programs that the card is to have; 0 never splits.
    """
    num_turns = num_blocks(num_inputs, block)
    turns = num_blocks(num_turns, max(1, min(fill // num_programs, num_turns)))
    return num_blocks(num_turns, turns), turns * block


def sum_splits(partial_SNO: Tensor, out_NO: Tensor, factor: float, *, table: LaunchTable) -> Tensor:
    """Writes the sum of shares, in order and times a factor, into `out_NO` and returns it.

    Args:
        partial_SNO: float32, contiguous.
        out_NO: contiguous.
        factor: of every element.
        table: how to launch.
    """
    entry = table.of("sum_splits")
    grid = (num_blocks(out_NO.numel(), entry["BLOCK"]),)
    launch(sum_splits_kernel, grid, partial_SNO, out_NO, out_NO.numel(), factor, NUM_SPLITS=len(partial_SNO), **entry)
    return out_NO
