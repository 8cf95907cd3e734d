"""A `FusedModel` with captured passes: denoising steps, canvases of several prompts, and short causal passes.

A short causal pass, which prompts and ranking need, takes a card less time than it takes the host to start its kernels,
so those of up to 128 tokens are padded to one of a few lengths, captured once and replayed. The padding belongs to
no row: no token attends to it, and its keys and values lie after the prompt's end.

Shape legend: T tokens, N tokens and padding, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.backends.cuda.canvas_pack import MOST_POSITIONS, CanvasPack
from dgemma_engine.backends.cuda.graphs import Graphs
from dgemma_engine.backends.cuda.model import FusedModel
from dgemma_engine.backends.cuda.step_buffers import NO_ROW
from dgemma_engine.backends.cuda.step_graphs import StepGraphs
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.kv_cache import KVCache, PromptCache

# Close together, since every further token may choose experts that no other did.
_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buffers:
    """Input and output tensors of passes of one length.

    Attributes:
        ids_N: int64.
        row_N: int32.
        position_N: int32.
        num_stored_1: int32.
        num_visible_1: int32.
        hidden_ND: the result.
    """

    ids_N: Tensor
    row_N: Tensor
    position_N: Tensor
    num_stored_1: Tensor
    num_visible_1: Tensor
    hidden_ND: Tensor


class GraphModel(FusedModel):
    """The same model.

    Args:
        model: the model; its layers are shared, not copied.
        graphs: receives the captured work.

    Attributes:
        steps: captured denoising steps.
    """

    most_together = MOST_POSITIONS

    def __init__(self, model: FusedModel, graphs: Graphs) -> None:
        assert model._end.weight_D is not None
        super().__init__(
            model.config,
            model._ops,
            embed_tokens=model.embed_tokens,
            begin=model._begin,
            layers=model._stack,
            norm_D=model._end.weight_D,
        )
        self.graphs, self.steps = graphs, StepGraphs(self, graphs)
        self._pack = CanvasPack(self, graphs)
        self._places: dict[int, _Buffers] = {}

    @torch.inference_mode()
    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """See `DiffusionModel.encode`; masks must be of packed rows."""
        num_new = ids_BT.shape[1]
        if num_new > _LENGTHS[-1]:
            return super().encode(ids_BT, cache, positions_BT=positions_BT, attention_masks=attention_masks)
        assert isinstance(cache, PromptCache)
        buffers = self._filled(ids_BT, cache, positions_BT, attention_masks)
        self._run("encode", buffers, cache)
        cache.advance(num_new)
        return buffers.hidden_ND[None, :num_new].clone()

    @torch.inference_mode()
    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`."""
        if ids_BT.shape[1] > _LENGTHS[-1]:
            super().prefill(ids_BT, cache)
            return
        assert isinstance(cache, PromptCache)
        self._run("prefill", self._filled(ids_BT, cache, None, None), cache)
        cache.advance(ids_BT.shape[1])

    @torch.inference_mode()
    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode`; masks must be of packed rows."""
        given = CanvasPass(
            canvas_1L=canvas_BL,
            cache=cache,
            soft_1LD=soft_BLD,
            positions_1L=positions_BL,
            attention_masks=attention_masks,
        )
        return self._pack.run([given])[0]

    @torch.inference_mode()
    def decode_together(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """See `DiffusionModel.decode_together`; masks must be of packed rows."""
        return self._pack.run(passes)

    def release_captured(self) -> None:
        """See `DiffusionModel.release_captured`."""
        self._pack.clear()
        self.steps.clear()

    def _run(self, kind: str, buffers: _Buffers, cache: PromptCache) -> None:
        stores = self.stores(cache, len(buffers.ids_N))

        def work() -> None:
            metadata = self.metadata(
                num_causal=len(buffers.ids_N),
                row_N=buffers.row_N,
                position_N=buffers.position_N,
                num_visible_1=buffers.num_visible_1,
                num_stored_1=buffers.num_stored_1,
                num_before_canvas_1=buffers.num_stored_1,
                canvas_start_1=buffers.num_stored_1,
            )
            x_ND = self.embed(buffers.ids_N)
            if kind == "prefill":
                self.store_kv(x_ND, metadata, stores)
            else:
                buffers.hidden_ND.copy_(self.run(x_ND, metadata, stores).data_ND)

        self.graphs.run((kind, len(buffers.ids_N)), work)

    def _filled(
        self,
        ids_1T: Tensor,
        cache: PromptCache,
        positions_1T: Tensor | None,
        attention_masks: AttentionMasks | None,
    ) -> _Buffers:
        """Returns the buffers of the next length, filled with a pass."""
        num_new, num_past = ids_1T.shape[1], cache.length
        rows = None if attention_masks is None else attention_masks.rows
        assert attention_masks is None or rows is not None, "a fused pass needs masks of packed rows"
        length = next(length for length in _LENGTHS if length >= num_new)
        if length not in self._places:
            self._places[length] = self._new_buffers(length)
        buffers = self._places[length]
        buffers.ids_N[:num_new].copy_(ids_1T[0])
        # A repeated token mostly chooses the same experts, so padding reads few further weights.
        buffers.ids_N[num_new:].copy_(ids_1T[0, -1:].expand(length - num_new))
        buffers.row_N.fill_(NO_ROW)
        buffers.row_N[:num_new].copy_(torch.zeros_like(ids_1T[0]) if rows is None else rows.row_L)
        buffers.position_N.copy_(torch.arange(num_past, num_past + length, dtype=torch.int32, device=self.device))
        if positions_1T is not None:
            buffers.position_N[:num_new].copy_(positions_1T[0])
        buffers.num_stored_1.fill_(num_past)
        hidden_from = None if rows is None else rows.hidden_from
        buffers.num_visible_1.fill_(num_past if hidden_from is None else hidden_from)
        return buffers

    def _new_buffers(self, length: int) -> _Buffers:
        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self.device)

        return _Buffers(
            ids_N=zeros(length, dtype=torch.int64),
            row_N=zeros(length),
            position_N=zeros(length),
            num_stored_1=zeros(1),
            num_visible_1=zeros(1),
            hidden_ND=zeros(length, self.config.hidden_size, dtype=self.dtype),
        )
