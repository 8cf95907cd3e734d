"""The interface of a diffusion language model, and the methods of it that follow from two forward passes.

A model has two modes over one prompt cache: `encode` is causal and writes keys and values, `decode` reads them and
attends to its canvas in both directions. One that was trained to attend in both directions only has no causal mode: its
cache holds token ids, and each canvas pass carries them. The denoiser, the prompt cache and ranking are written against
this interface only; a family of checkpoints and a backend each supply an implementation.

Shape legend: B rows, T prompt tokens, L canvas positions, N positions of all rows, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.dimensions import ModelDimensions
from dgemma_engine.model.kv_cache import KVCache


class DiffusionModel(Protocol):
    """A model in inference mode on one device."""

    @property
    def config(self) -> ModelDimensions:
        """Its dimensions."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights, hidden states, keys and values."""
        ...

    @property
    def number_format(self) -> str:
        """Number formats in which weights are read, for a person."""
        ...

    @property
    def has_self_conditioning(self) -> bool:
        """Whether `decode` reads `soft_BLD`; otherwise `soft_embeddings` is never called."""
        ...

    @property
    def has_causal_mode(self) -> bool:
        """Whether there is an `encode`; otherwise nothing is written from left to right, and `decode` ranks."""
        ...

    @property
    def is_compiled(self) -> bool:
        """Whether the layers run as compiled code."""
        ...

    @property
    def checked_at_once(self) -> int:
        """Most tokens of a causal pass that takes hardly longer than one over a single token; 1 if there are none."""
        ...

    @property
    def uncompiled_reason(self) -> str:
        """Why the layers run uncompiled where they should be compiled; empty otherwise."""
        ...

    @property
    def compiles_on_first_pass(self) -> bool:
        """Whether the first pass of a new length compiles kernels, so that warm-up needs several lengths."""
        ...

    @property
    def edit_tokens(self) -> int | None:
        """Tokens before the window that sliding layers keep of a prompt; None where every layer keeps all tokens."""
        ...

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """Runs tokens causally after the cached ones, and stores their keys and values; see `has_causal_mode`.

        Args:
            ids_BT: token ids, int64.
            cache: written in place.
            positions_BT: int64; by default the tokens follow the cache without a gap.
            attention_masks: by default causal, windowed on sliding layers.

        Returns:
            Normalised hidden states [B, T, D]; state t scores the token after t.
        """
        ...

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """Stores what `encode` stores, or without a causal mode the ids, and returns nothing.

        Args:
            ids_BT: token ids, int64, that follow the cache without a gap.
            cache: written in place.
        """
        ...

    def decode(
        self,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """Runs a canvas in both directions over the cached prompt.

        Args:
            canvas_BL: token ids, int64.
            cache: only read.
            soft_BLD: self-conditioning signal from `soft_embeddings`; None on the first step.
            positions_BL: int64; by default they follow the prompt.
            attention_masks: over visible prompt and canvas; by default everything is visible.

        Returns:
            Normalised hidden states [B, L, D]; state i scores position i (a family with shifted logits shifts here).
        """
        ...

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
        """Does `prefill(block_BT)` and then `decode(canvas_BL)`, if possible in one pass that reads the weights once.

        Args:
            block_BT: token ids that follow the cache without a gap, at least one, int64.
            canvas_BL: token ids, int64.
            cache: the block is stored in it.
            soft_BLD: see `decode`.
            positions_BL: int64; by default they follow the block.
            attention_masks: of the canvas, see `decode`; the visible prompt includes the block.

        Returns:
            Normalised hidden states of the canvas, [B, L, D].
        """
        ...

    @property
    def most_together(self) -> int:
        """Canvas positions that one `decode_together` takes for little more than the longest canvas alone."""
        ...

    def decode_together(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """Does `decode` of several canvases, each over a prompt of its own, reading the weights once.

        Args:
            passes: of different caches with the same adapter.

        Returns:
            Normalised hidden states of each, [1, L, D]: those of `decode` up to rounding.
        """
        ...

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Returns scaled embeddings [B, T, D]; the `soft_embeddings` of a distribution with one possible token."""
        ...

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """Returns softcapped logits [B, L, V] in float32."""
        ...

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """Returns logits [N, V] before the softcap, in the weights' dtype."""
        ...

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """Returns the expected embedding under each position's distribution, [B, L, D] in the weights' dtype."""
        ...

    def release_captured(self) -> None:
        """Releases CUDA graphs that were captured for prompts."""
        ...


class ModelDefaults:
    """Methods of `DiffusionModel` on top of `encode` and `decode`, and the answers of a model that compiles nothing.

    An implementation inherits them and overrides those that it computes faster.
    """

    has_self_conditioning: bool = False
    has_causal_mode: bool = True
    is_compiled: bool = False
    uncompiled_reason: str = ""
    checked_at_once: int = 1
    compiles_on_first_pass: bool = False
    edit_tokens: int | None = None
    most_together: int = 0

    @property
    def number_format(self: DiffusionModel) -> str:
        """See `DiffusionModel.number_format`."""
        return str(self.dtype).removeprefix("torch.")

    def prefill(self: DiffusionModel, ids_BT: Tensor, cache: KVCache) -> None:
        """See `DiffusionModel.prefill`."""
        self.encode(ids_BT, cache)

    def decode_after(
        self: DiffusionModel,
        block_BT: Tensor,
        canvas_BL: Tensor,
        cache: KVCache,
        *,
        soft_BLD: Tensor | None = None,
        positions_BL: Tensor | None = None,
        attention_masks: AttentionMasks = ALL_VISIBLE,
    ) -> Tensor:
        """See `DiffusionModel.decode_after`; takes two passes."""
        self.prefill(block_BT, cache)
        return self.decode(
            canvas_BL, cache, soft_BLD=soft_BLD, positions_BL=positions_BL, attention_masks=attention_masks
        )

    def decode_together(self: DiffusionModel, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """See `DiffusionModel.decode_together`; one canvas after another."""
        return [
            self.decode(
                each.canvas_1L,
                each.cache,
                soft_BLD=each.soft_1LD,
                positions_BL=each.positions_1L,
                attention_masks=each.attention_masks,
            )
            for each in passes
        ]

    def release_captured(self) -> None:
        """See `DiffusionModel.release_captured`; a no-op for a model that captures nothing."""
