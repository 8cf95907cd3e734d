"""A Llama in plain PyTorch as a `DiffusionModel`: two modes over one set of weights.

Hidden states of the layers score the NEXT position, so a canvas is read after the prompt's last token
(`shifted_canvas`). There is no self-conditioning. The terms of the canvas adapter take part in the canvas mode only,
those of a cache's adapter in both.
Knows tensors and token ids; knows nothing of files, sampling, holes or text.

Shape legend: B rows, T prompt tokens, L canvas positions, X tokens of a canvas pass, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.decoder import Decoder
from dgemma_engine.families.llama.layers import Attend, LayerTerms, LlamaLayer
from dgemma_engine.families.llama.shifted_canvas import CanvasShift
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.kv_cache import KVCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LlamaAdapter:
    """A `ModelAdapter` of a `LlamaModel`.

    Attributes:
        causal: what it adds to each layer in causal mode.
        canvas: what it and the model's canvas adapter add to each layer in canvas mode.
    """

    causal: Sequence[LayerTerms]
    canvas: Sequence[LayerTerms]

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        tensors = {factor for terms in (*self.causal, *self.canvas) for factor in terms.parameters()}
        return sum(tensor.nbytes for tensor in tensors)


class LlamaModel(Decoder):
    """The model; implements `DiffusionModel`.

    Args:
        config: dimensions.
        ops: the operations it calls.
        has_head: whether the output matrix is one of its own, `lm_head`, and not the embedding.

    Attributes:
        canvas_terms: of each layer, what an adapter adds in canvas mode; None adds nothing.
    """

    def __init__(self, config: LlamaConfig, ops: Ops, *, has_head: bool = False) -> None:
        super().__init__(config, ops, has_head=has_head)
        self.canvas_terms: Sequence[LayerTerms | None] = (None,) * config.num_layers
        self._shift = CanvasShift(config.sliding_window)

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """See `DiffusionModel.encode`."""
        num_past, num_new = cache.length, ids_BT.shape[1]
        rotary = self._rotary(positions_BT, num_past, num_new)
        x_BTD = self.embed(ids_BT)
        attend = self._looking_back(cache, attention_masks or self._causal_masks(num_past, num_new, cache.seen_from))
        for layer, terms in zip(self.layers, self._causal_terms(cache), strict=True):
            x_BTD = layer(x_BTD, rotary, attend, terms)
        cache.remember(ids_BT)
        cache.advance(num_new)
        return self.norm(x_BTD)

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`; the last layer stops at its keys and values."""
        num_past, num_new = cache.length, ids_BT.shape[1]
        rotary = self._rotary(None, num_past, num_new)
        x_BTD = self.embed(ids_BT)
        attend = self._looking_back(cache, self._causal_masks(num_past, num_new, cache.prompt_start))
        *body, last = self.layers
        *body_terms, last_terms = self._causal_terms(cache)
        for layer, terms in zip(body, body_terms, strict=True):
            x_BTD = layer(x_BTD, rotary, attend, terms)
        assert isinstance(last, LlamaLayer)
        _q, k, v = last.project(x_BTD, rotary, last_terms)
        cache.append(len(body), k, v)
        cache.remember(ids_BT)
        cache.advance(num_new)

    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode`; each row begins with the prompt's last token, and `soft_BLD` must be None."""
        assert soft_BLD is None, "this family has no self-conditioning"
        canvas = self._shift.of(canvas_BL, cache, positions_BL=positions_BL, attention_masks=attention_masks)
        rotary = self._rotary(canvas.positions_1X, cache.length, len(canvas.take_X))
        x_BXD = self.embed(canvas.tokens(cache.ids()[:, -1:], canvas_BL))
        attend = self._looking_around(cache, canvas.attention_masks)
        adapter = _adapter(cache)
        canvas_terms = self.canvas_terms if adapter is None else adapter.canvas
        for layer, terms in zip(self.layers, canvas_terms, strict=True):
            x_BXD = layer(x_BXD, rotary, attend, terms)
        return self.norm(x_BXD[:, canvas.state_L])

    def _causal_terms(self, cache: KVCache) -> Sequence[LayerTerms | None]:
        adapter = _adapter(cache)
        return (None,) * len(self.layers) if adapter is None else adapter.causal

    def _looking_back(self, cache: KVCache, attention_masks: AttentionMasks) -> Attend:
        mask = attention_masks.of(LayerKind.FULL)

        def attend(layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.append(layer_idx, k, v)
            num_keys = keys.shape[2] if mask is None else mask.shape[-1]
            return self._ops.attention(q, keys[:, :, -num_keys:], values[:, :, -num_keys:], mask)

        return attend

    def _looking_around(self, cache: KVCache, attention_masks: AttentionMasks) -> Attend:
        mask, num_visible = attention_masks.of(LayerKind.FULL), cache.length

        def attend(layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.with_canvas(layer_idx, k, v, num_visible)
            return self._ops.attention(q, keys, values, mask)

        return attend

    def _rotary(self, positions_BT: Tensor | None, num_past: int, num_new: int) -> Rotary:
        if positions_BT is None:
            positions_BT = torch.arange(num_past, num_past + num_new, device=self.device)[None]
        return self.rotary_of(positions_BT)

    def _causal_masks(self, num_past: int, num_new: int, shown_from: int) -> AttentionMasks:
        return masks.causal(
            num_past=num_past,
            num_new=num_new,
            sliding_window=self.config.sliding_window,
            device=self.device,
            shown_from=shown_from,
        )


def _adapter(cache: KVCache) -> LlamaAdapter | None:
    assert cache.adapter is None or isinstance(cache.adapter, LlamaAdapter), "an adapter is made for its model"
    return cache.adapter
