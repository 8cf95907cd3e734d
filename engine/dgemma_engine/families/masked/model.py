"""A decoder of masked diffusion in plain PyTorch as a `DiffusionModel`: every pass carries the whole window.

A state of the prompt depends on the canvas, so no key or value outlives a pass: the cache holds token ids, and each row
of a canvas is a window of its own, prompt, row and all, with positions from 0. Windows share the products of a pass and
attend to themselves only. There is no causal mode.
Knows tensors and token ids; knows nothing of files, sampling, holes or text.

Shape legend: B rows of the batch (1), T prompt tokens, L canvas positions, W tokens of all windows of a pass, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.families.llama.decoder import Decoder
from dgemma_engine.families.llama.layers import Attend
from dgemma_engine.families.masked.config import MaskedConfig
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.kv_cache import KVCache
from dgemma_engine.model.ops import Ops

MOST_TOGETHER = 2_048
"""Tokens of windows that share a pass; a longer window has one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """Windows of one pass, one after the other.

    Attributes:
        ids_1W: token ids.
        positions_1W: of each token in its window.
        lengths: of each window.
        scored_W: which states score the canvas positions, in their order.
        place_L: those canvas positions.
    """

    ids_1W: Tensor
    positions_1W: Tensor
    lengths: list[int]
    scored_W: Tensor
    place_L: Tensor


class MaskedModel(Decoder):
    """The model; implements `DiffusionModel`.

    Args:
        config: dimensions.
        ops: the operations it calls.
        has_head: whether the output matrix is one of its own, `lm_head`, and not the embedding.
    """

    has_causal_mode: bool = False

    def __init__(self, config: MaskedConfig, ops: Ops, *, has_head: bool = False) -> None:
        super().__init__(config, ops, has_head=has_head)
        # State i scores position i, or the one after it.
        self._shift = int(config.is_shifted)

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """See `DiffusionModel.encode`; there is no causal mode."""
        raise AssertionError("this model has no causal mode")

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`: the ids are all there is to store."""
        cache.remember(ids_BT)
        cache.advance(ids_BT.shape[1])

    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode`; of the masks only `rows` is read, and positions are those of the windows."""
        assert soft_BLD is None, "this family has no self-conditioning"
        rows = attention_masks.rows
        assert rows is not None or attention_masks.full is None, "masks of a canvas are those of packed rows"
        row_L = torch.zeros_like(canvas_BL[0]) if rows is None else rows.row_L
        hidden_BLD: Tensor | None = None
        for windows in self._windows(canvas_BL, cache.ids(), row_L):
            states_1XD = self._run(windows)
            if hidden_BLD is None:
                hidden_BLD = states_1XD.new_empty(1, canvas_BL.shape[1], states_1XD.shape[-1])
            hidden_BLD[:, windows.place_L] = states_1XD
        assert hidden_BLD is not None, "an empty canvas"
        return hidden_BLD

    def _windows(self, canvas_1L: Tensor, prompt_1T: Tensor, row_L: Tensor) -> Iterator[_Windows]:
        """Yields the windows of all rows, grouped by pass."""
        num_prompt, waiting, total = prompt_1T.shape[1], list[Tensor](), 0
        for row in row_L.unique().tolist():
            place_L = (row_L == row).nonzero()[:, 0]
            length = num_prompt + len(place_L)
            if waiting and total + length > MOST_TOGETHER:
                yield self._joined(canvas_1L, prompt_1T, waiting)
                waiting, total = [], 0
            waiting.append(place_L)
            total += length
        yield self._joined(canvas_1L, prompt_1T, waiting)

    def _joined(self, canvas_1L: Tensor, prompt_1T: Tensor, places: list[Tensor]) -> _Windows:
        num_prompt, device = prompt_1T.shape[1], canvas_1L.device
        lengths = [num_prompt + len(place_L) for place_L in places]
        ids = [part for place_L in places for part in (prompt_1T, canvas_1L[:, place_L])]
        scored, start = list[Tensor](), 0
        for length in lengths:
            scored.append(torch.arange(start + num_prompt, start + length, device=device) - self._shift)
            start += length
        positions = [torch.arange(length, device=device) for length in lengths]
        return _Windows(
            ids_1W=torch.cat(ids, dim=1),
            positions_1W=torch.cat(positions)[None],
            lengths=lengths,
            scored_W=torch.cat(scored),
            place_L=torch.cat(places),
        )

    def _run(self, windows: _Windows) -> Tensor:
        """Returns the normalised states that score the canvas positions of the windows, [1, positions, D]."""
        rotary, attend = self.rotary_of(windows.positions_1W), self._within(windows.lengths)
        x_1WD = self.embed(windows.ids_1W)
        for layer in self.layers:
            x_1WD = layer(x_1WD, rotary, attend)
        return self.norm(x_1WD[:, windows.scored_W])

    def _within(self, lengths: list[int]) -> Attend:
        def attend(_layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            queries, keys, values = (heads.split(lengths, dim=2) for heads in (q, k, v))
            parts = zip(queries, keys, values, strict=True)
            return torch.cat([self._ops.attention(*part, None) for part in parts], dim=2)

        return attend
