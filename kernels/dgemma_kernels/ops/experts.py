"""Mixture of experts over sorted tokens as Triton kernels, for plain, fp8, int8, int4 and nvfp4 weights.

Two launches: gate and up with their gated gelu, then down with the routing weight. No atomics and no size that depends
on the routing. Signatures of `reference/experts.py`. Shape legend: N tokens, K experts per token, M = N * K, D hidden,
I intermediate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._experts import combine_kernel, experts_kernel
from dgemma_kernels.packing.gpu import PackedWeight
from dgemma_kernels.tensors.formats import RowFormat, Rows, WeightFormat, empty_rows
from dgemma_kernels.tensors.routing import Routing

# Mean share of a small tile's rows that an expert may get.
_FILLED = 0.625


def row_format(weight_format: WeightFormat) -> RowFormat:
    """Returns the format of an expert kernel's activations: fp8 weights take fp8 rows, all others plain ones."""
    return RowFormat.FP8_GROUP if weight_format is WeightFormat.FP8 else RowFormat.PLAIN


def tile_rows(num_tokens: int, num_selected: int, num_experts: int, *, table: LaunchTable) -> int:
    """Returns the tile size to route for: small for a canvas, large for a prompt.

    The small one as long as few experts get more rows than it holds: of evenly routed tokens, at a mean of 20 rows an
    expert 0.5 % get more than 32, at 32 rows 45 % do, and each of those decodes its weights twice.
    """
    entry = table.of("tiles")
    return entry["SMALL"] if num_tokens * num_selected <= _FILLED * entry["SMALL"] * num_experts else entry["LARGE"]


def experts(
    rows: Rows, routing: Routing, gate_up: PackedWeight, down: PackedWeight, *, table: LaunchTable | None = None
) -> Tensor:
    """Returns each chosen expert's output times its routing weight, [N, K, D]; their sum is the mixture.

    Args:
        rows: inputs, in `row_format(gate_up.format)`.
        routing: of these tokens.
        gate_up: [E, 2 I, D], gate first.
        down: [E, D, I], of the same format.
        table: how to launch; by default the device's.

    Raises:
        ValueError: the weights' formats differ, or the rows' does not go with them.
    """
    if down.format is not gate_up.format or rows.format is not row_format(gate_up.format):
        raise ValueError(f"{gate_up.format=} needs the same for down and {row_format(gate_up.format)=} rows")
    table = table or for_device(rows.data_ND.device)
    num_tokens, num_selected = routing.weights_NK.shape
    dtype = torch.bfloat16 if rows.scale is not None else rows.data_ND.dtype
    inner = _launch("up", rows, routing, gate_up, num_tokens * num_selected, gate_up.num_outputs // 2, dtype, table)
    parts = _launch("down", inner, routing, down, num_tokens * num_selected, down.num_outputs, dtype, table)
    return parts.data_ND.view(num_tokens, num_selected, down.num_outputs)


def combine(parts_NKD: Tensor, *, table: LaunchTable | None = None) -> Tensor:
    """Returns the sum over each token's experts, in order and in float32, [N, D]."""
    num_tokens, num_selected, size = parts_NKD.shape
    out_ND = parts_NKD.new_empty(num_tokens, size)
    entry = (table or for_device(parts_NKD.device)).of("combine")
    grid = (num_tokens, num_blocks(size, entry["BLOCK"]))
    launch(combine_kernel, grid, parts_NKD, out_ND, size, NUM_PARTS=num_selected, **entry)
    return out_ND


def _launch(
    part: str,
    rows: Rows,
    routing: Routing,
    weight: PackedWeight,
    num_rows: int,
    num_outputs: int,
    dtype: torch.dtype,
    table: LaunchTable,
) -> Rows:
    gated = part == "up"
    out_format = rows.format if gated else RowFormat.PLAIN
    out = empty_rows(rows.data_ND.new_empty(num_rows, 0, dtype=dtype), num_outputs, out_format)
    # A prompt's tiles are larger than a canvas's, and what a canvas has registers for may spill there.
    size = ".large" if routing.tile_rows > table.of("tiles")["SMALL"] else ""
    entry = table.of(f"experts_{part}.{weight.format}{size}")
    parts = num_blocks(num_blocks(num_outputs, entry["BLOCK_N"]), entry["EACH"])
    launch(
        experts_kernel, (len(routing.tile_expert_T) * parts,),
        rows.data_ND, rows.scale, weight.data, weight.scale, weight.row_scale_EO, out.data_ND, out.scale,
        routing.assignment_M, routing.offset_E1, routing.tile_expert_T, routing.tile_start_T, routing.weights_NK,
        weight.num_inputs, weight.num_outputs, num_outputs,
        weight.data.stride(0), 0 if weight.scale is None else weight.scale.stride(0),
        NUM_SELECTED=routing.weights_NK.shape[1], FORMAT=weight.format.value, GATED=gated,
        OUT_FORMAT=out_format.value, MASKED=weight.num_inputs % entry["BLOCK_K"] != 0,
        EVEN=num_outputs % entry["BLOCK_N"] == 0, BLOCK_T=routing.tile_rows, **entry,
    )  # fmt: skip
    return out
