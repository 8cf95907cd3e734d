"""A small DiffusionGemma on a processor: packed weights, the same results up to rounding, in a fraction of the time.

For one row at a time. Weights are packed when the model is made: later changes are not read, and no gradients flow.

Shape legend: T tokens in causal mode, L canvas positions, N both, P rows of a pass (the tokens, then padding:
`packing.cpu.filled`), D hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from dgemma_kernels.packing.cpu import PackedMatrix, filled, num_filled
from torch import Tensor

from dgemma_engine.backends.cpu.attention import KEY_MULTIPLE, AttentionSegment
from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.backends.cpu.layers import LayerStack, PackedSelfConditioning, RotaryCache, RotaryCosSin
from dgemma_engine.backends.cpu.torchscript import scripted, unspecialised
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.devices import is_small
from dgemma_engine.model.diffusion_model import DiffusionModel, ModelDefaults
from dgemma_engine.model.kv_cache import KVCache, prompt_cache
from dgemma_engine.model.layers import Layer
from dgemma_engine.model.transformer import DiffusionGemma, embed_scale

_log = logging.getLogger(__name__)


def pack_for_cpu(model: DiffusionGemma) -> DiffusionModel:
    """Returns the model to run: a `CpuModel` of a small model on a processor, `model` itself for any other.

    Args:
        model: in inference mode, its weights final.
    """
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    return CpuModel(model) if is_small(num_bytes, model.device) else model


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasInputs:
    """Inputs of a canvas besides its tokens; the steps of a run share them.

    Attributes:
        num_past: tokens before the canvas.
        num_canvas: its positions.
        positions_BL: as they were given to `decode`; not changed in place afterwards.
        attention_masks: likewise.
        rotary: of the positions.
        segment: by the masks.
    """

    num_past: int
    num_canvas: int
    positions_BL: Tensor | None
    attention_masks: AttentionMasks
    rotary: dict[LayerKind, RotaryCosSin]
    segment: AttentionSegment


class CpuModel(ModelDefaults):
    """A `DiffusionModel` for one row (B = 1) and a `PromptCache`.

    Args:
        model: the plain model; of its weights only the embeddings stay in use, the others are packed.
    """

    has_self_conditioning = True

    def __init__(self, model: DiffusionGemma) -> None:
        self.config = config = model.config
        self._plain = model
        weight_VD = model.embed_tokens.weight.detach()
        self.device, self.dtype = weight_VD.device, weight_VD.dtype
        self._scale = embed_scale(config.hidden_size, self.dtype)
        self._rotary = RotaryCache(config)
        self_conditioning = scripted(PackedSelfConditioning(model.self_conditioning, config))
        self._self_conditioning = self_conditioning.call
        self._stack = LayerStack([layer for layer in model.layers if isinstance(layer, Layer)], config)
        self.uncompiled_reason = self._stack.refusal or self_conditioning.refusal
        self.is_compiled = not self.uncompiled_reason
        if self.uncompiled_reason:
            _log.warning(
                "The model runs uncompiled, and each step takes longer: TorchScript of torch %s refuses it: %s",
                *(torch.__version__, self.uncompiled_reason),
            )
        self._norm = RmsNorm(model.norm.weight, config.hidden_size, config.rms_norm_eps)
        self._to_vocabulary, self._from_vocabulary = PackedMatrix(weight_VD), PackedMatrix(weight_VD.t())
        self._probs_PV = weight_VD.new_empty(0, config.vocab_size)
        self._inputs: CanvasInputs | None = None

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
        segment = self._segment(attention_masks or self._causal_masks(num_past, num_new), num_past, num_new, extra=0)
        x_PD = filled(self._embedded(ids_BT))
        rotary = self._rotary.at(positions_BT, num_past, num_new)
        x_PD = self._stack.run(x_PD, rotary, prompt_cache(cache), [segment], num_new)
        cache.advance(num_new)
        return self._normed(x_PD[:num_new])

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`."""
        num_past, num_new = cache.length, ids_BT.shape[1]
        segment = self._segment(self._causal_masks(num_past, num_new), num_past, num_new, extra=0)
        rotary = self._rotary.at(None, num_past, num_new)
        self._stack.store_kv(filled(self._embedded(ids_BT)), rotary, prompt_cache(cache), [segment])
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
        """See `DiffusionModel.decode`."""
        num_past, num_canvas = cache.length, canvas_BL.shape[1]
        inputs = self._inputs
        if (
            inputs is None
            or (inputs.num_past, inputs.num_canvas) != (num_past, num_canvas)
            or inputs.positions_BL is not positions_BL
            or inputs.attention_masks is not attention_masks
        ):
            inputs = self._inputs = CanvasInputs(
                num_past=num_past,
                num_canvas=num_canvas,
                positions_BL=positions_BL,
                attention_masks=attention_masks,
                rotary=self._rotary.at(positions_BL, num_past, num_canvas),
                segment=self._segment(attention_masks, num_past, num_canvas, extra=num_canvas - 1),
            )
        x_PD = self._canvas_states(canvas_BL, soft_BLD)
        return self._normed(self._stack.run(x_PD, inputs.rotary, prompt_cache(cache), [inputs.segment], 0)[:num_canvas])

    def decode_after(
        self,
        block_BT: Tensor,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode_after`."""
        num_past, num_block, num_canvas = cache.length, block_BT.shape[1], canvas_BL.shape[1]
        segments = [
            self._segment(self._causal_masks(num_past, num_block), num_past, num_block, extra=0),
            self._segment(attention_masks, num_past + num_block, num_canvas, extra=num_canvas - 1),
        ]
        canvas_LD = self._canvas_states(canvas_BL, soft_BLD)[:num_canvas]
        x_PD = filled(torch.cat((self._embedded(block_BT), canvas_LD)))
        if positions_BL is not None:
            block_BT = torch.arange(num_past, num_past + num_block, device=positions_BL.device)[None]
            positions_BL = torch.cat((block_BT, positions_BL), dim=1)
        rotary = self._rotary.at(positions_BL, num_past, num_block + num_canvas)
        x_PD = self._stack.run(x_PD, rotary, prompt_cache(cache), segments, num_block)
        cache.advance(num_block)
        return self._normed(x_PD[num_block : num_block + num_canvas])

    def embed(self, ids_BT: Tensor) -> Tensor:
        """See `DiffusionModel.embed`."""
        return self._plain.embed(ids_BT)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """See `DiffusionModel.logits`."""
        raw_NV = self.raw_logits(hidden_BLD.flatten(0, 1))
        return self._plain.ops.softcap(raw_NV, self.config.final_logit_softcapping).unflatten(0, hidden_BLD.shape[:2])

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """See `DiffusionModel.raw_logits`."""
        return self._to_vocabulary(filled(hidden_ND))[: len(hidden_ND)]

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """See `DiffusionModel.soft_embeddings`."""
        probs_NV = probs_BLV.flatten(0, 1)
        num_positions, num_rows = len(probs_NV), num_filled(len(probs_NV))
        if num_rows > len(self._probs_PV):
            self._probs_PV = probs_NV.new_zeros(num_rows, probs_NV.shape[1], dtype=self.dtype)
        # Nothing reads the stale values in the padding.
        self._probs_PV[:num_positions].copy_(probs_NV)
        soft_ND = self._from_vocabulary(self._probs_PV[:num_rows])[:num_positions].mul_(self._scale)
        return soft_ND.unflatten(0, probs_BLV.shape[:2])

    def _canvas_states(self, canvas_BL: Tensor, soft_BLD: Tensor | None) -> Tensor:
        """Returns the hidden states of a canvas for the first layer, [P, D], float32."""
        soft_PD = None if soft_BLD is None else filled(soft_BLD[0])
        with unspecialised():
            return self._self_conditioning(filled(self._embedded(canvas_BL)), soft_PD)

    def _embedded(self, ids_1N: Tensor) -> Tensor:
        assert ids_1N.shape[0] == 1, "a CpuModel runs one row"
        return self._plain.embed_tokens(ids_1N[0]).float() * self._scale

    def _causal_masks(self, num_past: int, num_new: int) -> AttentionMasks:
        window = self.config.sliding_window
        return masks.causal(num_past=num_past, num_new=num_new, sliding_window=window, device=self.device)

    def _segment(
        self, attention_masks: AttentionMasks, num_past: int, num_tokens: int, *, extra: int
    ) -> AttentionSegment:
        """Returns the segment of consecutive tokens; without a mask a sliding layer reads its window and `extra` keys.

        Args:
            attention_masks: of those tokens.
            num_past: keys before theirs.
            num_tokens: how many they are.
            extra: tokens.
        """
        masks, first_keys = dict[LayerKind, Tensor](), dict[LayerKind, int]()
        num_rows, end = num_filled(num_tokens), num_past + num_tokens
        for kind in LayerKind:
            mask = attention_masks.of(kind)
            unmasked = self.config.sliding_window + extra if kind is LayerKind.SLIDING else end
            num_keys = min(end, unmasked) if mask is None else mask.shape[-1]
            first_keys[kind] = end - num_keys
            additive = torch.zeros(
                1, 1, 1 if mask is None else num_rows, -(-num_keys // KEY_MULTIPLE) * KEY_MULTIPLE, dtype=self.dtype
            )
            additive[..., num_keys:] = -torch.inf
            if mask is not None:
                additive[:, :, :num_tokens, :num_keys].masked_fill_(mask.logical_not(), -torch.inf)
                additive = additive.repeat(1, 1, self.config.num_attention_heads // self.config.num_kv_heads[kind], 1)
            masks[kind] = additive
        return AttentionSegment(num_tokens=num_tokens, num_rows=num_rows, first_keys=first_keys, masks=masks)

    def _normed(self, x_ND: Tensor) -> Tensor:
        return self._norm(x_ND).to(self.dtype)[None]
