"""Mixture of experts over sorted tokens in plain PyTorch, float32 inside; signatures of `experts.py`.

Shape legend: N tokens, K experts per token, D hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.reference import plain
from dgemma_kernels.reference.quantization import quantise_rows, restore_rows, restore_weight
from dgemma_kernels.tensors.formats import Rows, Weight
from dgemma_kernels.tensors.routing import Routing


def experts(rows: Rows, routing: Routing, gate_up: Weight, down: Weight) -> Tensor:
    """Returns each chosen expert's output times its routing weight: see `experts.experts`."""
    dtype = torch.bfloat16 if rows.scale is not None else rows.data_ND.dtype
    x_ND, gate_up_EOD, down_EDI = restore_rows(rows), restore_weight(gate_up), restore_weight(down)
    parts_NKD = x_ND.new_empty(*routing.weights_NK.shape, down.num_outputs)
    for token, chosen in enumerate(routing.indices_NK.tolist()):
        for k, expert in enumerate(chosen):
            inner_1I = plain.gated_gelu(x_ND[token][None] @ gate_up_EOD[expert].T)
            if rows.scale is None:
                inner_1I = inner_1I.to(dtype).float()
            else:
                inner_1I = restore_rows(quantise_rows(inner_1I, rows.format))
            parts_NKD[token, k] = (inner_1I @ down_EDI[expert].T)[0] * routing.weights_NK[token, k]
    return parts_NKD.to(dtype)


def combine(parts_NKD: Tensor) -> Tensor:
    """Returns the sum over each token's experts, [N, D]."""
    return parts_NKD.float().sum(1).to(parts_NKD.dtype)
