"""Attention of several rows over one prompt in plain PyTorch; signatures of `attention.py`.

Shape legend: L tokens of the pass, H query heads, d head size, S positions, P stored tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_kernels.reference import kv_store, plain
from dgemma_kernels.tensors.kv_store import KVStore


def canvas(
    q_LHd: Tensor, store: KVStore, row_L: Tensor, num_visible_1: Tensor, num_stored_1: Tensor, window: int | None
) -> Tensor:
    """Each canvas position sees its own row, and the prompt: see `attention.canvas`."""
    k_GSd, v_GSd, first = kv_store.tensors(store)
    num_visible = int(num_visible_1)
    cached_P = torch.arange(first, int(num_stored_1), device=row_L.device)
    seen_P = (cached_P < num_visible) & (cached_P >= (0 if window is None else num_visible - window + 1))
    mask_LS = torch.cat((seen_P.expand(len(row_L), -1), row_L[:, None] == row_L[None, :]), dim=1)
    return _attend(q_LHd, k_GSd, v_GSd, mask_LS)


def causal(
    q_LHd: Tensor,
    store: KVStore,
    row_L: Tensor,
    position_L: Tensor,
    num_visible_1: Tensor,
    num_stored_1: Tensor,
    window: int | None,
) -> Tensor:
    """Each token sees its own branch and the prompt up to its own position: see `attention.causal`."""
    k_GSd, v_GSd, first = kv_store.tensors(store)
    cached_P = torch.arange(first, int(num_stored_1), device=row_L.device)
    position_S = torch.cat((cached_P, position_L))
    same_LL = row_L[:, None] == row_L[None, :]
    mask_LS = torch.cat(((cached_P < int(num_visible_1)).expand(len(row_L), -1), same_LL), dim=1)
    mask_LS &= position_S[None, :] <= position_L[:, None]
    if window is not None:
        mask_LS &= position_S[None, :] > position_L[:, None] - window
    return _attend(q_LHd, k_GSd, v_GSd, mask_LS)


def _attend(q_LHd: Tensor, k_GSd: Tensor, v_GSd: Tensor, mask_LS: Tensor) -> Tensor:
    size = mask_LS.shape[1]
    k, v = k_GSd[None, :, :size], v_GSd[None, :, :size]
    return plain.attention(q_LHd.transpose(0, 1)[None], k, v, mask_LS[None, None])[0].transpose(0, 1)
