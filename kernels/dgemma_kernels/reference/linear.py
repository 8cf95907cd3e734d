"""Dense projections in plain PyTorch, float32 inside; signature of `linear.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.reference.quantization import restore_rows, restore_weight
from dgemma_kernels.tensors.formats import Rows, Weight


def linear(rows: Rows, weight: Weight, out_NO: Tensor | None = None) -> Tensor:
    """Returns `rows @ weight.T`: see `linear.linear`."""
    dtype = torch.bfloat16 if rows.scale is not None else rows.data_ND.dtype
    product_NO = (restore_rows(rows) @ restore_weight(weight).T).to(dtype)
    return product_NO if out_NO is None else out_NO.copy_(product_NO)


def sum_splits(partial_SNO: Tensor, out_NO: Tensor, factor: float) -> Tensor:
    """Writes the sum of shares times a factor: see `linear.sum_splits`."""
    return out_NO.copy_(partial_SNO.float().sum(0) * factor)
