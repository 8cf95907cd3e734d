"""One canvas to be run over its prompt: the arguments of `DiffusionModel.decode` as a value.

Shape legend: L canvas positions, N those of several canvases, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CanvasPass:
    """A canvas of one row of the batch.

    Attributes:
        canvas_1L: token ids, int64; not changed in place before the pass is made.
        cache: its prompt; only read.
        soft_1LD: self-conditioning signal; None on the first step.
        positions_1L: int64; None follows the prompt.
        attention_masks: over visible prompt and canvas.
    """

    canvas_1L: Tensor
    cache: KVCache
    soft_1LD: Tensor | None = None
    positions_1L: Tensor | None = None
    attention_masks: AttentionMasks = ALL_VISIBLE

    @property
    def num_positions(self) -> int:
        """L."""
        return self.canvas_1L.shape[1]

    def positions(self, device: torch.device) -> Tensor:
        """Returns the position of each canvas position, [1, L] int64."""
        if self.positions_1L is not None:
            return self.positions_1L
        start = self.cache.length
        return torch.arange(start, start + self.num_positions, device=device)[None]


def joined_soft(passes: Sequence[CanvasPass]) -> Tensor | None:
    """Returns the self-conditioning signals of canvases one after the other, [1, N, D]; None if none has one.

    One without is given zeros, which add nothing.
    """
    known = next((each.soft_1LD for each in passes if each.soft_1LD is not None), None)
    if known is None:
        return None
    nothing = (known.new_zeros(1, each.num_positions, known.shape[-1]) for each in passes)
    return torch.cat(
        [zeros if each.soft_1LD is None else each.soft_1LD for each, zeros in zip(passes, nothing, strict=True)], dim=1
    )
