"""Who may look at whom in causal mode, as bool masks (True: may look).

The canvas needs none: it sees the whole canvas, all of the prompt on full layers and the prompt's last
`sliding_window - 1` tokens on sliding ones, which `KVCache.with_canvas` cuts off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.config import LayerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMasks:
    """One mask per layer kind, each broadcastable to [B, 1, queries, keys]; None sees everything."""

    full: Tensor | None
    sliding: Tensor | None

    def of(self, kind: LayerKind) -> Tensor | None:
        """Returns the mask of one layer kind."""
        return self.full if kind is LayerKind.FULL else self.sliding


ALL_VISIBLE = AttentionMasks(full=None, sliding=None)


def causal(*, num_past: int, num_new: int, sliding_window: int, device: torch.device) -> AttentionMasks:
    """Masks of `num_new` tokens that follow `num_past` cached ones.

    Args:
        num_past: tokens already in the cache.
        num_new: tokens of this pass.
        sliding_window: tokens a sliding layer sees, the query's own included.
        device: where the masks live.

    Returns:
        Masks of shape [1, 1, num_new, num_past + num_new].
    """
    query_idx = torch.arange(num_past, num_past + num_new, device=device)[:, None]
    key_idx = torch.arange(num_past + num_new, device=device)[None, :]
    full = key_idx <= query_idx
    return AttentionMasks(full=full[None, None], sliding=(full & (key_idx > query_idx - sliding_window))[None, None])
