"""Router, top-k, renormalisation and sort by expert as one Triton kernel.

No host synchronisation and no size that depends on the choice, so it can be captured in a graph. Signature of
`reference/routing.py`. Shape legend: N tokens, D features, E experts, K experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.launch.kernel_launch import launch, num_blocks, power_of_two
from dgemma_kernels.launch.launch_table import LaunchTable, for_device
from dgemma_kernels.ops._routing import route_kernel
from dgemma_kernels.tensors.routing import Routing, most_tiles


def route(
    x_ND: Tensor,
    router_ED: Tensor,
    per_expert_scale_E: Tensor,
    num_selected: int,
    tile_rows: int,
    *,
    arrivals_1: Tensor | None = None,
    table: LaunchTable | None = None,
) -> Routing:
    """Chooses experts: softmax, top-k (of equals the lower index), renormalised, scaled per expert; then sorts.

    A NaN score is chosen last and makes its token's weights NaN; other tokens are not affected.

    Args:
        x_ND: the router's input, normed and scaled, contiguous.
        router_ED: contiguous.
        per_expert_scale_E: factor on the weight of each expert.
        num_selected: K, at most E.
        tile_rows: most rows of a tile, see `experts.tile_rows`.
        arrivals_1: int32, 0, and 0 again afterwards; saves the allocation of one. Not shared between streams.
        table: how to launch; by default the device's.

    Raises:
        ValueError: more experts are asked for than there are.
    """
    (num_rows, num_columns), num_experts = x_ND.shape, router_ED.shape[0]
    if not 1 <= num_selected <= num_experts:
        raise ValueError(f"{num_selected=} must be between 1 and {num_experts=}")
    assert x_ND.is_contiguous() and router_ED.is_contiguous()
    entry = (table or for_device(x_ND.device)).of("route")
    blocks = num_blocks(num_rows, entry["BLOCK_ROWS"])
    num_slots = power_of_two(num_experts)
    num_assignments = num_rows * num_selected
    num_tiles = most_tiles(num_assignments, num_experts, tile_rows)
    result = Routing(
        weights_NK=x_ND.new_empty(num_rows, num_selected, dtype=torch.float32),
        indices_NK=x_ND.new_empty(num_rows, num_selected, dtype=torch.int32),
        assignment_M=x_ND.new_empty(num_assignments, dtype=torch.int32),
        offset_E1=x_ND.new_empty(num_experts + 1, dtype=torch.int32),
        tile_expert_T=x_ND.new_empty(num_tiles, dtype=torch.int32),
        tile_start_T=x_ND.new_empty(num_tiles, dtype=torch.int32),
        tile_rows=tile_rows,
    )
    if arrivals_1 is None:
        arrivals_1 = x_ND.new_zeros(1, dtype=torch.int32)
    launch(
        route_kernel, (blocks,),
        x_ND, router_ED, per_expert_scale_E, result.weights_NK, result.indices_NK,
        x_ND.new_empty(num_assignments, dtype=torch.int32), x_ND.new_empty(blocks * num_slots, dtype=torch.int32),
        arrivals_1, result.assignment_M, result.offset_E1, result.tile_expert_T, result.tile_start_T,
        num_rows, num_columns, num_experts, num_tiles, tile_rows, NUM_SELECTED=num_selected,
        NUM_CHOICES=power_of_two(num_selected), NUM_SLOTS=num_slots, **entry,
    )  # fmt: skip
    return result
