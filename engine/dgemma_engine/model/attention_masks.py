"""Bool attention masks (True: attends).

A canvas alone needs none: it attends to itself, to all of the prompt on full layers and to the prompt's last
`sliding_window - 1` tokens on sliding ones, which `KVCache.with_canvas` cuts off. Rows that share one pass need one, or
they would attend to each other. Works on positions and windows, without models, caches or token ids.

Shape legend: L tokens of a pass, all rows one after the other; P cached tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.model.config import LayerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """The rows that masks of packed rows were made from, for operations that need no masks.

    Attributes:
        row_L: the row of each token of the pass, int64.
        hidden_from: cached tokens from this one on are hidden; None hides none.
    """

    row_L: Tensor
    hidden_from: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMasks:
    """One mask per layer kind, each broadcastable to [B, 1, queries, keys]; None masks nothing.

    In causal mode a mask may be narrower than the keys: it then covers the last ones, and the others are not read.
    `rows` describes the masks of packed rows for operations that need no masks; None for other masks.
    """

    full: Tensor | None
    sliding: Tensor | None
    rows: PackedRows | None = None

    def of(self, kind: LayerKind) -> Tensor | None:
        """Returns the mask of one layer kind."""
        return self.full if kind is LayerKind.FULL else self.sliding


ALL_VISIBLE = AttentionMasks(full=None, sliding=None)


def causal(
    *, num_past: int, num_new: int, sliding_window: int, device: torch.device, shown_from: int = 0
) -> AttentionMasks:
    """Masks of `num_new` tokens that follow `num_past` cached ones.

    Args:
        num_past: tokens already in the cache.
        num_new: tokens of this pass.
        sliding_window: tokens a sliding layer sees, the query's own included.
        device: where the masks live.
        shown_from: cached tokens before this one are hidden.

    Returns:
        Masks of shape [1, 1, num_new, visible + num_new], where visible is what the layer kind's window holds of the
        cache; none for a single token that sees all of that.
    """
    if num_new == 1 and not shown_from:
        return ALL_VISIBLE
    # A token sees itself and the `sliding_window - 1` before it.
    start = max(0, shown_from, num_past - (sliding_window - 1))
    query_idx = torch.arange(num_past, num_past + num_new, device=device)[:, None]
    key_idx = torch.arange(num_past + num_new, device=device)[None, :]
    full = key_idx <= query_idx
    sliding = full[:, start:] & (key_idx[:, start:] > query_idx - sliding_window)
    return AttentionMasks(full=full[None, None, :, shown_from:], sliding=sliding[None, None])


def packed(row_L: Tensor, *, num_past: int, sliding_window: int) -> AttentionMasks:
    """Masks for several canvases in one `decode`: each attends to the prompt and itself only.

    The positions that go with them start again at `num_past` in every row.

    Args:
        row_L: the row of each canvas position, int64; rows may have any lengths.
        num_past: tokens in the cache.
        sliding_window: of the model; sliding layers read the cache's last `sliding_window - 1` tokens.

    Returns:
        Masks of shape [1, 1, L, visible + L], where visible is what the layer kind reads of the cache.
    """
    same_LL = row_L[:, None] == row_L[None, :]
    num_near = min(num_past, sliding_window - 1)
    # All rows see the prompt, or the part of it in the window.
    full, sliding = (
        torch.cat((same_LL.new_ones(len(row_L), num_visible), same_LL), dim=1)[None, None]
        for num_visible in (num_past, num_near)
    )
    return AttentionMasks(full=full, sliding=sliding, rows=PackedRows(row_L=row_L))


def branches(
    row_L: Tensor,
    position_L: Tensor,
    *,
    num_past: int,
    sliding_window: int,
    hidden_from: int,
    shown_from_L: Tensor | None = None,
) -> AttentionMasks:
    """Masks for several continuations of one prompt in one `encode`, each causal, over the prompt and itself only.

    A branch may begin with the prompt's last tokens again, so that its first new token gets a probability; their
    cached copies must then be hidden, or every branch would see them twice.

    Args:
        row_L: the branch of each token, int64.
        position_L: the position of each token, int64; rises within a branch and is nowhere below `hidden_from`.
        num_past: tokens in the cache, whose positions are 0, 1, ...
        sliding_window: tokens a sliding layer sees by position, the query's own included.
        hidden_from: cached tokens from this one on are hidden; `num_past` hides none.
        shown_from_L: cached tokens before this one are hidden from each token, int64; None hides none.

    Returns:
        Masks of shape [1, 1, L, P + L], the sliding one without the cached tokens that no branch's window reaches.
    """
    assert 0 <= hidden_from <= num_past, (hidden_from, num_past)
    cached_P = torch.arange(num_past, device=row_L.device)
    query_L1 = position_L[:, None]
    own_LL = (row_L[:, None] == row_L[None, :]) & (position_L[None, :] <= query_L1)
    shown_LP = (cached_P < hidden_from).expand(len(row_L), -1)
    if shown_from_L is not None:
        shown_LP = shown_LP & (cached_P >= shown_from_L[:, None])
    full_LS = torch.cat((shown_LP, own_LL), dim=1)
    near_LS = torch.cat((cached_P, position_L)) > query_L1 - sliding_window
    start = max(0, hidden_from - (sliding_window - 1))
    sliding = (full_LS & near_LS)[None, None, :, start:]
    rows = PackedRows(row_L=row_L, hidden_from=hidden_from)
    return AttentionMasks(full=full_LS[None, None], sliding=sliding, rows=rows)
