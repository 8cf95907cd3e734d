"""A small model on a processor: packed weights, the same results up to rounding, in a fraction of the time.

The passes of every family: prompts, canvases, masks and rotary factors. A family supplies its layers, and how tokens
become hidden states. For one row at a time. Weights are packed when the model is made: later changes are not read, and
no gradients flow.

Shape legend: T tokens in causal mode, L canvas positions, N both, P rows of a pass (the tokens, then padding:
`packing.cpu.filled`), D hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from dgemma_kernels.packing.cpu import filled, num_filled
from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import KEY_MULTIPLE, AttentionSegment
from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.backends.cpu.layer_stack import LayerStack
from dgemma_engine.backends.cpu.rotary import RotaryCosSin, rotary_tables
from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.canvas_pass import CanvasPass, joined_soft
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.diffusion_model import ModelDefaults
from dgemma_engine.model.dimensions import ModelDimensions
from dgemma_engine.model.kv_cache import KVCache, prompt_cache
from dgemma_engine.model.rotary import RotaryDimensions

_log = logging.getLogger(__name__)

# Runs under way at once, each with its own masks and rotary factors.
_NUM_RUNS = 8
# Several canvases in one pass take less time than one after another, the more so the shorter they are, and no request
# waits longer than for as many turns (engine/bench/results/together.json).
_MOST_TOGETHER = 512
# Tokens in causal mode attend in pieces of this many, each to the keys up to its end: of a prompt of 512, five eighths
# of the scores that one piece has.
_CAUSAL_PIECE = 128


class PackedDimensions(ModelDimensions, RotaryDimensions, Protocol):
    """The configuration values that packed passes read."""

    @property
    def num_attention_heads(self) -> int:
        """Query heads of a layer."""
        ...


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


class PackedModel(ModelDefaults, ABC):
    """A `DiffusionModel` for one row (B = 1) and a `PromptCache`, or several canvases with one each.

    Args:
        config: dimensions.
        layers: see `LayerStack`.
        norm: after the last layer.
        dtype: of the weights.
    """

    most_together = _MOST_TOGETHER

    def __init__(
        self, config: PackedDimensions, layers: Sequence[nn.Module], norm: RmsNorm, dtype: torch.dtype
    ) -> None:
        self.config, self.dtype, self.device = config, dtype, torch.device("cpu")
        self._num_heads = config.num_attention_heads
        self._present = [kind for kind in LayerKind if kind in config.layer_kinds]
        # Rotary factors of as many positions as were asked for so far.
        self._tables, self._num_tabled = dict[LayerKind, RotaryCosSin](), 0
        self._stack = LayerStack(layers, config.layer_kinds, norm)
        self._inputs = deque[CanvasInputs](maxlen=_NUM_RUNS)

    @abstractmethod
    def _embedded(self, ids_N: Tensor) -> Tensor:
        """Returns the embeddings of tokens in causal mode for the first layer, [N, D], float32."""

    @abstractmethod
    def _canvas_states(self, ids_L: Tensor, soft_BLD: Tensor | None) -> Tensor:
        """Returns the hidden states of a canvas for the first layer, [P, D], float32."""

    def _note_compilation(self, refusals: Sequence[str]) -> None:
        """Sets the reported state of compilation, and logs a part that was refused."""
        self.uncompiled_reason = next((refusal for refusal in (self._stack.refusal, *refusals) if refusal), "")
        self.is_compiled = not self.uncompiled_reason
        if self.uncompiled_reason:
            _log.warning(
                "The model runs uncompiled, and each step takes longer: TorchScript of torch %s refuses it: %s",
                *(torch.__version__, self.uncompiled_reason),
            )

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """See `DiffusionModel.encode`."""
        (ids_T,) = ids_BT
        num_past, num_new = cache.length, len(ids_T)
        if attention_masks is None:
            segments = self._causal_segments(num_past, num_new, cache.seen_from)
        else:
            segments = [self._segment(attention_masks, num_past, num_new, num_filled(num_new), extra=0)]
        x_PD = filled(self._embedded(ids_T))
        rotary = self._rotary(positions_BT, num_past, num_new)
        x_PD = self._stack.run(x_PD, rotary, [(prompt_cache(cache), segments)], num_new)
        cache.remember(ids_BT)
        cache.advance(num_new)
        return x_PD[:num_new].to(self.dtype)[None]

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`."""
        (ids_T,) = ids_BT
        num_past, num_new = cache.length, len(ids_T)
        segments = self._causal_segments(num_past, num_new, cache.prompt_start)
        rotary = self._rotary(None, num_past, num_new)
        self._stack.store_kv(filled(self._embedded(ids_T)), rotary, prompt_cache(cache), segments)
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
        """See `DiffusionModel.decode`."""
        (canvas_L,) = canvas_BL
        num_canvas = len(canvas_L)
        inputs = self._canvas_inputs(cache.length, num_canvas, positions_BL, attention_masks)
        x_PD = self._canvas_states(canvas_L, soft_BLD)
        x_PD = self._stack.run(x_PD, inputs.rotary, [(prompt_cache(cache), [inputs.segment])], 0)
        return x_PD[:num_canvas].to(self.dtype)[None]

    def decode_together(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """See `DiffusionModel.decode_together`."""
        sizes = [each.num_positions for each in passes]
        inputs = [
            self._canvas_inputs(each.cache.length, each.num_positions, each.positions_1L, each.attention_masks)
            for each in passes
        ]
        (ids_N,) = torch.cat([each.canvas_1L for each in passes], dim=1)
        x_PD = self._canvas_states(ids_N, joined_soft(passes))
        rotary = {
            kind: RotaryCosSin(
                cos=torch.cat([each.rotary[kind].cos for each in inputs]),
                sin=torch.cat([each.rotary[kind].sin for each in inputs]),
            )
            for kind in self._present
        }
        parts = [(prompt_cache(each.cache), [own.segment]) for each, own in zip(passes, inputs, strict=True)]
        x_PD = self._stack.run(x_PD, rotary, parts, 0)
        return list(x_PD[: sum(sizes)].to(self.dtype)[None].split(sizes, dim=1))

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
        (block_T,), (canvas_L,) = block_BT, canvas_BL
        num_past, num_block, num_canvas = cache.length, len(block_T), len(canvas_L)
        segments = [
            *self._causal_segments(num_past, num_block, cache.prompt_start),
            self._segment(
                attention_masks, num_past + num_block, num_canvas, num_filled(num_canvas), extra=num_canvas - 1
            ),
        ]
        canvas_LD = self._canvas_states(canvas_L, soft_BLD)[:num_canvas]
        x_PD = filled(torch.cat((self._embedded(block_T), canvas_LD)))
        if positions_BL is not None:
            place_1T = torch.arange(num_past, num_past + num_block, device=positions_BL.device)[None]
            positions_BL = torch.cat((place_1T, positions_BL), dim=1)
        rotary = self._rotary(positions_BL, num_past, num_block + num_canvas)
        x_PD = self._stack.run(x_PD, rotary, [(prompt_cache(cache), segments)], num_block)
        cache.remember(block_BT)
        cache.advance(num_block)
        return x_PD[num_block : num_block + num_canvas].to(self.dtype)[None]

    def _canvas_inputs(
        self, num_past: int, num_canvas: int, positions_BL: Tensor | None, attention_masks: AttentionMasks
    ) -> CanvasInputs:
        """Returns what the steps of a run share; those of the last few runs are kept."""
        for inputs in self._inputs:
            is_as_long = (inputs.num_past, inputs.num_canvas) == (num_past, num_canvas)
            if is_as_long and inputs.positions_BL is positions_BL and inputs.attention_masks is attention_masks:
                return inputs
        inputs = CanvasInputs(
            num_past=num_past,
            num_canvas=num_canvas,
            positions_BL=positions_BL,
            attention_masks=attention_masks,
            rotary=self._rotary(positions_BL, num_past, num_canvas),
            segment=self._segment(attention_masks, num_past, num_canvas, num_filled(num_canvas), extra=num_canvas - 1),
        )
        self._inputs.append(inputs)
        return inputs

    def _causal_segments(self, num_past: int, num_new: int, shown_from: int) -> list[AttentionSegment]:
        """Returns the segments of tokens in causal mode that follow `num_past` others; see `masks.causal`."""
        segments: list[AttentionSegment] = []
        for start in range(num_past, num_past + num_new, _CAUSAL_PIECE):
            num_tokens = min(_CAUSAL_PIECE, num_past + num_new - start)
            causal = masks.causal(
                num_past=start,
                num_new=num_tokens,
                sliding_window=self.config.sliding_window,
                device=self.device,
                shown_from=shown_from,
            )
            segments.append(self._segment(causal, start, num_tokens, num_filled(num_tokens), extra=0))
        return segments

    def _rotary(self, positions_1N: Tensor | None, num_past: int, num_tokens: int) -> dict[LayerKind, RotaryCosSin]:
        if positions_1N is None:
            positions_N, most = torch.arange(num_past, num_past + num_tokens), num_past + num_tokens
        else:
            positions_N, most = positions_1N[0], int(positions_1N.max()) + 1
        if most > self._num_tabled:
            self._num_tabled = max(512, 2 * most)
            self._tables = rotary_tables(self.config, self._num_tabled)
        return {
            kind: RotaryCosSin(cos=table.cos.index_select(0, positions_N), sin=table.sin.index_select(0, positions_N))
            for kind, table in self._tables.items()
        }

    def _segment(
        self, attention_masks: AttentionMasks, num_past: int, num_tokens: int, num_rows: int, *, extra: int
    ) -> AttentionSegment:
        """Returns the segment of consecutive tokens; without a mask a sliding layer reads its window and `extra` keys.

        Args:
            attention_masks: of those tokens.
            num_past: keys before theirs.
            num_tokens: how many they are.
            num_rows: see `AttentionSegment`.
            extra: keys beyond the window.
        """
        masks, first_keys = dict[LayerKind, Tensor](), dict[LayerKind, int]()
        end = num_past + num_tokens
        for kind in self._present:
            mask = attention_masks.full if kind is LayerKind.FULL else attention_masks.sliding
            unmasked = self.config.sliding_window + extra if kind is LayerKind.SLIDING else end
            num_keys = min(end, unmasked) if mask is None else mask.shape[-1]
            first_keys[kind] = end - num_keys
            additive = torch.zeros(
                1, 1, 1 if mask is None else num_rows, -(-num_keys // KEY_MULTIPLE) * KEY_MULTIPLE, dtype=self.dtype
            )
            additive[..., num_keys:] = -torch.inf
            if mask is not None:
                additive[:, :, :num_tokens, :num_keys].masked_fill_(mask.logical_not(), -torch.inf)
                additive = additive.repeat(1, 1, self._num_heads // self.config.num_kv_heads[kind], 1)
            masks[kind] = additive
        return AttentionSegment(num_tokens=num_tokens, num_rows=num_rows, first_keys=first_keys, masks=masks)
