"""Router, top-k and sort by expert in plain PyTorch; signature of `routing.py`.

Shape legend: N tokens, D features, E experts, K experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.tensors.routing import NO_EXPERT, Routing, most_tiles


def route(
    x_ND: Tensor,
    router_ED: Tensor,
    per_expert_scale_E: Tensor,
    num_selected: int,
    tile_rows: int,
    *,
    arrivals_1: Tensor | None = None,
) -> Routing:
    """Chooses experts and sorts the assignments: see `routing.route`, without its counter of arrivals."""
    del arrivals_1
    scores_NE = x_ND.float() @ router_ED.float().T
    # A NaN score is chosen last, so that such a token does not change how its neighbours are routed.
    sortable_NE = scores_NE.masked_fill(scores_NE.isnan(), -torch.inf)
    indices_NK = torch.sort(sortable_NE, dim=-1, descending=True, stable=True).indices[:, :num_selected]
    weights_NK = torch.softmax(scores_NE, dim=-1).gather(1, indices_NK)
    weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True) * per_expert_scale_E.float()[indices_NK]
    return sorted_by_expert(weights_NK, indices_NK.int(), router_ED.shape[0], tile_rows)


def sorted_by_expert(weights_NK: Tensor, indices_NK: Tensor, num_experts: int, tile_rows: int) -> Routing:
    """Returns the routing of choices that were made elsewhere."""
    flat_M = indices_NK.flatten().long()
    counts_E = torch.bincount(flat_M, minlength=num_experts)
    offset_E1 = torch.cat((counts_E.new_zeros(1), counts_E.cumsum(0))).int()
    experts: list[int] = []
    starts: list[int] = []
    for expert, count in enumerate(counts_E.tolist()):
        for start in range(0, count, tile_rows):
            experts.append(expert)
            starts.append(int(offset_E1[expert]) + start)
    num_empty = most_tiles(len(flat_M), num_experts, tile_rows) - len(experts)
    return Routing(
        weights_NK=weights_NK,
        indices_NK=indices_NK,
        assignment_M=torch.argsort(flat_M, stable=True).int(),
        offset_E1=offset_E1,
        tile_expert_T=offset_E1.new_tensor(experts + [NO_EXPERT] * num_empty),
        tile_start_T=offset_E1.new_tensor(starts + [0] * num_empty),
        tile_rows=tile_rows,
    )
