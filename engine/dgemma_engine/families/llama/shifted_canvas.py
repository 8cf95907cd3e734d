"""How a Llama reads a canvas: its states score the NEXT position, so each row begins with the prompt's last token.

Turns the canvas that `DiffusionModel.decode` is given into the tokens of the pass, and says which of its states scores
each canvas position. The cached copy of the repeated token is hidden, or every row would see it twice.

Shape legend: B rows of the batch, L canvas positions, X tokens of the pass: L and one for each packed row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.attention_masks import AttentionMasks
from dgemma_engine.model.kv_cache import KVCache

# Runs that take turns.
_NUM_RUNS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedCanvas:
    """A canvas with the prompt's last token before each of its rows; the steps of a run share it.

    Attributes:
        take_X: where the tokens of the pass are in the prompt's last token followed by the canvas.
        state_L: which state of the pass scores each canvas position.
        positions_1X: of the tokens of the pass.
        attention_masks: over the prompt and the tokens of the pass.
        seen: first place in the cache that the canvas sees, and the one after the last.
        positions_BL: as they were given to `decode`; not changed in place afterwards.
        given_masks: likewise.
    """

    take_X: Tensor
    state_L: Tensor
    positions_1X: Tensor
    attention_masks: AttentionMasks
    seen: tuple[int, int]
    positions_BL: Tensor | None
    given_masks: AttentionMasks

    @classmethod
    def of(
        cls,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        positions_BL: Tensor | None,
        attention_masks: AttentionMasks,
        sliding_window: int,
    ) -> Self:
        """Returns the pass over a canvas; the arguments are those of `DiffusionModel.decode`."""
        num_past = cache.length
        num_canvas, device = canvas_BL.shape[1], canvas_BL.device
        rows = attention_masks.rows
        assert rows is not None or attention_masks.full is None, "masks of a canvas are those of packed rows"
        row_of = [0] * num_canvas if rows is None else rows.row_L.tolist()
        given: list[int] = (
            [*range(num_past, num_past + num_canvas)] if positions_BL is None else positions_BL[0].tolist()
        )
        take, states, packed_rows, positions = list[int](), list[int](), list[int](), list[int]()
        for place, (row, position) in enumerate(zip(row_of, given, strict=True)):
            if place == 0 or row != row_of[place - 1]:
                take.append(0)
                packed_rows.append(row)
                positions.append(num_past - 1)
            states.append(len(take) - 1)
            take.append(1 + place)
            packed_rows.append(row)
            positions.append(position)
        packed = masks.packed(
            torch.tensor(packed_rows, device=device), num_past=num_past, sliding_window=sliding_window
        ).full
        assert packed is not None
        packed[..., num_past - 1] = packed[..., : cache.seen_from] = False
        return cls(
            take_X=torch.tensor(take, device=device),
            state_L=torch.tensor(states, device=device),
            positions_1X=torch.tensor([positions], device=device),
            attention_masks=AttentionMasks(full=packed, sliding=packed),
            seen=(cache.seen_from, num_past),
            positions_BL=positions_BL,
            given_masks=attention_masks,
        )

    def matches(
        self, canvas_BL: Tensor, cache: KVCache, *, positions_BL: Tensor | None, attention_masks: AttentionMasks
    ) -> bool:
        """Whether this pass was made of the same tensors, and of as many positions."""
        return (
            self.seen == (cache.seen_from, cache.length)
            and len(self.state_L) == canvas_BL.shape[1]
            and self.positions_BL is positions_BL
            and self.given_masks is attention_masks
        )

    def tokens(self, last_ids_B1: Tensor, canvas_BL: Tensor) -> Tensor:
        """Returns the tokens of the pass, [B, X]."""
        return torch.cat((last_ids_B1, canvas_BL), dim=1)[:, self.take_X]


class CanvasShift:
    """Makes the pass over each canvas, and keeps those of the last few runs: the steps of a run share one.

    Args:
        sliding_window: of the model.
    """

    def __init__(self, sliding_window: int) -> None:
        self._sliding_window = sliding_window
        self._last = deque[ShiftedCanvas](maxlen=_NUM_RUNS)

    def of(
        self, canvas_BL: Tensor, cache: KVCache, *, positions_BL: Tensor | None, attention_masks: AttentionMasks
    ) -> ShiftedCanvas:
        """Returns the pass over a canvas; the arguments are those of `DiffusionModel.decode`."""
        for known in self._last:
            if known.matches(canvas_BL, cache, positions_BL=positions_BL, attention_masks=attention_masks):
                return known
        made = ShiftedCanvas.of(
            canvas_BL,
            cache,
            positions_BL=positions_BL,
            attention_masks=attention_masks,
            sliding_window=self._sliding_window,
        )
        self._last.append(made)
        return made
