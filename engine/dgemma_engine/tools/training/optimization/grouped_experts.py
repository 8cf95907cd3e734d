"""The mixture of experts for training on a GPU: tokens sorted by expert, one grouped product for all experts.

`reference.plain.experts_densely` runs every expert on every token, which a processor with few small experts does
fastest; a card would spend most of its time on products that are not used. Shape legend: N tokens, M = N * K sorted
rows, E experts, K chosen, D hidden, I intermediate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from dgemma_kernels import reference
from torch import Tensor


def experts_grouped(
    x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor, gate_up_E2ID: Tensor, down_EDI: Tensor
) -> Tensor:
    """Returns the same sum as `reference.plain.experts`, [N, D] in `x`'s dtype; has gradients and waits for no count.

    Args:
        x_ND: inputs.
        weights_NK: routing weights.
        indices_NK: chosen experts.
        gate_up_E2ID: gate and up projections, gate first.
        down_EDI: down projections.
    """
    num_experts, num_selected = gate_up_E2ID.shape[0], indices_NK.shape[1]
    chosen_M, order_M = torch.sort(indices_NK.flatten(), stable=True)
    ends_E = torch.searchsorted(chosen_M, torch.arange(num_experts, device=x_ND.device), right=True).int()
    token_of_M = order_M // num_selected
    gate_up_M2I = _grouped_product(x_ND[token_of_M], gate_up_E2ID, ends_E)
    rows_MD = _grouped_product(reference.plain.gated_gelu(gate_up_M2I), down_EDI, ends_E)
    weighted_MD = rows_MD * weights_NK.flatten()[order_M, None].to(rows_MD.dtype)
    return torch.zeros_like(x_ND, dtype=rows_MD.dtype).index_add(0, token_of_M, weighted_MD).to(x_ND.dtype)


def _grouped_product(rows_MD: Tensor, weight_EOD: Tensor, ends_E: Tensor) -> Tensor:
    """Multiplies consecutive groups of rows with a matrix each, in bfloat16: the only dtype the product has."""
    return F.grouped_mm(rows_MD.bfloat16(), weight_EOD.bfloat16().mT, offs=ends_E)
