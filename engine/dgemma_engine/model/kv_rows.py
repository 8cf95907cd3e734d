"""Keys and values of one layer of a prompt in one piece of memory, which may begin after the prompt's first token.

Shape legend: G key-value heads, S rows, d head size.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.dimensions import ModelDimensions

# Most spare tokens of a layer that grows: to double a long prompt would take gigabytes with the big model.
_MOST_GROWTH = 1_024


def sliding_rows(window: int, edit_tokens: int) -> int:
    """Returns the rows of a sliding layer that drops tokens: between two drops it takes `edit_tokens` new ones."""
    return window + 2 * edit_tokens


def prompt_bytes(
    config: ModelDimensions, num_tokens: int, dtype: torch.dtype, *, edit_tokens: int | None = None
) -> int:
    """Returns the size of the keys and values of a prompt, as `PromptCache` keeps them.

    Args:
        config: dimensions.
        num_tokens: of prompt and canvas.
        dtype: of keys and values.
        edit_tokens: see `PromptCache`; None where every layer keeps all tokens.
    """
    rows = dict.fromkeys(LayerKind, num_tokens)
    if edit_tokens is not None:
        rows[LayerKind.SLIDING] = min(num_tokens, sliding_rows(config.sliding_window, edit_tokens))
    values = sum(2 * rows[kind] * config.num_kv_heads[kind] * config.head_dim[kind] for kind in config.layer_kinds)
    return values * dtype.itemsize


class KVRows:
    """One layer's keys and values; zeros until something is written.

    Args:
        num_kv: G.
        num_rows: S, to begin with.
        head_dim: d.
        dtype: of both.
        device: where they live.

    Attributes:
        kv: [2, G, S, d].
        first: place in the prompt of the first row.
    """

    def __init__(self, num_kv: int, num_rows: int, head_dim: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.kv = torch.zeros(2, num_kv, num_rows, head_dim, dtype=dtype, device=device)
        self.first = 0

    def holds(self, end: int) -> bool:
        """Whether there is a row for every place before `end`."""
        return end - self.first <= self.kv.shape[2]

    def between(self, start: int, end: int) -> Tensor:
        """Returns the rows of places `start` to `end`, [2, G, S, d], without a copy."""
        return self.kv[:, :, start - self.first : end - self.first]

    def grow(self, end: int, most: int = sys.maxsize) -> None:
        """Makes room for all places before `end`, and for some more if there are not `most` rows then."""
        old = self.kv
        capacity = max(end - self.first, min(most, old.shape[2] + min(old.shape[2], _MOST_GROWTH)))
        self.kv = old.new_zeros(2, old.shape[1], capacity, old.shape[3])
        # All rows: while a text beside the prompt is written, the prompt comes after it.
        self.kv[:, :, : old.shape[2]] = old

    def drop(self, start: int, end: int, num_rows: int) -> None:
        """Moves places `start` to `end` to the beginning of at least `num_rows` rows; those before `start` are gone."""
        start = max(start, self.first)
        kept = self.between(start, end)
        if self.kv.shape[2] < num_rows:
            self.kv = self.kv.new_zeros(2, self.kv.shape[1], num_rows, self.kv.shape[3])
        else:
            kept = kept.clone()
        self.kv[:, :, : end - start] = kept
        self.first = start
