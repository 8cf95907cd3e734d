"""Canvases of several prompts in one captured pass, which reads every weight once.

Each canvas is padded to the length of the longest, so that a pass is captured once for each number of canvases and
length, whatever the prompts. The padding belongs to no row: no token attends to it.

Shape legend: S canvases, L positions of each, padded, N of all; D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.backends.cuda.graphs import Graphs
from dgemma_engine.backends.cuda.kv_table import KVTable
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_buffers import NO_ROW, step_length
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.kv_cache import prompt_cache

MOST_POSITIONS = 1_024
"""Positions that experts compute in about the time in which their weights are read (docs/PERFORMANCE.md)."""


MOST_CANVASES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """Where passes of one shape read and write: the beginnings of the same tensors that other shapes use.

    Attributes:
        ids_SL: int64.
        soft_SLD: self-conditioning signals; 0 on a first step.
        row_SL: int32.
        position_SL: int32.
        hidden_SLD: the result.
    """

    ids_SL: Tensor
    soft_SLD: Tensor
    row_SL: Tensor
    position_SL: Tensor
    hidden_SLD: Tensor


class _Buffers:
    """Tensors of some positions, for canvases of any number and length.

    Attributes:
        num_stored_S1: tokens stored of each prompt, int32.
        tables: where the keys and values of each prompt lie.
    """

    def __init__(self, model: FusedModel, num_positions: int) -> None:
        def zeros(*sizes: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(num_positions, *sizes, dtype=dtype, device=model.device)

        hidden_size = model.config.hidden_size
        self._ids_N, self._row_N, self._position_N = zeros(dtype=torch.int64), zeros(), zeros()
        self._soft_ND, self._hidden_ND = zeros(hidden_size, dtype=model.dtype), zeros(hidden_size, dtype=model.dtype)
        self.num_stored_S1 = torch.zeros(MOST_CANVASES, 1, dtype=torch.int32, device=model.device)
        self.tables = [KVTable(model.config, model.dtype, model.device) for _ in range(MOST_CANVASES)]

    @property
    def num_positions(self) -> int:
        """Positions of all canvases together."""
        return len(self._ids_N)

    def view(self, num_canvases: int, length: int) -> _View:
        """Returns the tensors of a shape, at the same addresses each time."""
        num, shape = num_canvases * length, (num_canvases, length)
        return _View(
            ids_SL=self._ids_N[:num].view(shape),
            soft_SLD=self._soft_ND[:num].view(*shape, -1),
            row_SL=self._row_N[:num].view(shape),
            position_SL=self._position_N[:num].view(shape),
            hidden_SLD=self._hidden_ND[:num].view(*shape, -1),
        )


class CanvasPack:
    """Passes over canvases of a model.

    Args:
        model: with fused operations.
        graphs: receives the captured work.
    """

    def __init__(self, model: FusedModel, graphs: Graphs) -> None:
        self._model, self._graphs = model, graphs
        self._buffers: _Buffers | None = None

    def run(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """Returns the hidden states of each canvas, [1, L, D]; see `DiffusionModel.decode_together`."""
        shape = len(passes), step_length(max(each.num_positions for each in passes))
        assert len(passes) <= MOST_CANVASES, passes
        if self._buffers is None or self._buffers.num_positions < shape[0] * shape[1]:
            # Captured graphs read the old tensors.
            self._graphs.clear()
            self._buffers = _Buffers(self._model, max(MOST_POSITIONS, shape[0] * shape[1]))
        buffers, view = self._buffers, self._buffers.view(*shape)
        for place, given in enumerate(passes):
            self._fill(buffers, view, place, given)
        self._graphs.run(("canvases", *shape), lambda: self._pass(buffers, view))
        return [view.hidden_SLD[place, None, : each.num_positions].clone() for place, each in enumerate(passes)]

    def clear(self) -> None:
        """Releases the tensors; the caller drops the graphs captured with them."""
        self._buffers = None

    def _fill(self, buffers: _Buffers, view: _View, place: int, given: CanvasPass) -> None:
        rows, cache, num = given.attention_masks.rows, prompt_cache(given.cache), given.num_positions
        assert rows is not None or given.attention_masks.full is None, "a fused pass needs masks of packed rows"
        ids_L, row_L, position_L, soft_LD = (
            tensor[place] for tensor in (view.ids_SL, view.row_SL, view.position_SL, view.soft_SLD)
        )
        length = len(ids_L)
        ids_L[:num].copy_(given.canvas_1L[0])
        # A repeated token mostly chooses the same experts, so padding reads few further weights.
        ids_L[num:].copy_(given.canvas_1L[0, -1:].expand(length - num))
        row_L.fill_(NO_ROW)
        row_L[:num].copy_(torch.zeros_like(given.canvas_1L[0]) if rows is None else rows.row_L)
        position_L.fill_(cache.length)
        position_L[:num].copy_(given.positions(self._model.device)[0])
        soft_LD.zero_()
        if given.soft_1LD is not None:
            soft_LD[:num].copy_(given.soft_1LD[0])
        buffers.num_stored_S1[place].fill_(cache.length)
        buffers.tables[place].write(cache, length)

    def _pass(self, buffers: _Buffers, view: _View) -> None:
        model = self._model
        ids_N, soft_ND = view.ids_SL.flatten(), view.soft_SLD.flatten(0, 1)
        segments = [
            (
                model.metadata(
                    num_causal=0,
                    row_N=row_L,
                    position_N=position_L,
                    num_visible_1=stored_1,
                    num_stored_1=stored_1,
                    num_before_canvas_1=stored_1,
                    canvas_start_1=stored_1,
                    num_tokens=len(ids_N),
                ),
                table.stores,
            )
            for row_L, position_L, stored_1, table in zip(
                view.row_SL, view.position_SL, buffers.num_stored_S1, buffers.tables, strict=False
            )
        ]
        rows = model.run_segments(model.input_states(ids_N[:0], ids_N, soft_ND), segments)
        view.hidden_SLD.copy_(rows.data_ND.view_as(view.hidden_SLD))
