"""DiffusionGemma's text model in plain PyTorch, two modes over one set of weights.

`encode` is causal: it writes a prompt's keys and values into a cache and returns hidden states, hence exact
left-to-right probabilities. `decode` reads that cache, never writes it, and looks at its canvas in both directions.
`decode_after` does both in one pass. Knows tensors and token ids; knows nothing of files, sampling, holes or text.

The architecture follows `transformers/models/diffusion_gemma/modeling_diffusion_gemma.py` (5.23.0).

Shape legend: B rows, T prompt tokens, L canvas positions, X = T + L, D hidden, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.kv_cache import KVCache
from dgemma_engine.model.layers import Attention, Layer, Norm, SelfConditioning
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary, RotaryTable

__all__ = ["Attention", "DiffusionGemma", "Layer"]


class DiffusionGemma(nn.Module):
    """The text model.

    Args:
        config: dimensions.
        ops: the operations it calls.

    Attributes:
        uncompiled_reason: why the layers run uncompiled where they should be compiled; empty otherwise.
        is_compiled: whether the layers are one call of compiled code.
    """

    uncompiled_reason: str = ""
    is_compiled: bool = False

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.config = config
        self._ops = ops
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i, ops) for i in range(len(config.layer_kinds)))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps, ops)
        self.self_conditioning = SelfConditioning(config, ops)
        self.rotary = RotaryTable(config)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, hidden states, keys and values."""
        return self.embed_tokens.weight.dtype

    def release_captured(self) -> None:
        """Releases CUDA graphs captured for prompts; a no-op for a model that captures none."""

    def reset_parameters(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Draws matrices from a normal distribution and sets scales to 1, in place."""
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(0.0, std, generator=generator)
                else:
                    parameter.fill_(1.0)

    def encode(
        self,
        ids_BT: Tensor,
        cache: KVCache,
        *,
        positions_BT: Tensor | None = None,
        attention_masks: AttentionMasks | None = None,
    ) -> Tensor:
        """Runs tokens causally behind what the cache holds, and stores them there.

        Args:
            ids_BT: token ids, int64.
            cache: written in place.
            positions_BT: int64; by default the tokens follow the cache without a gap.
            attention_masks: by default causal, windowed on sliding layers.

        Returns:
            Normalised hidden states [B, T, D].
        """
        num_past, num_new = cache.length, ids_BT.shape[1]
        if positions_BT is None:
            positions_BT = torch.arange(num_past, num_past + num_new, device=ids_BT.device)[None]
        if attention_masks is None:
            attention_masks = self._causal_masks(num_past, num_new)
        x_BTD = self.embed(ids_BT)
        rotary = self.rotary(positions_BT, x_BTD.dtype)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            kind = layer.self_attn.kind
            x_BTD = layer.encode(x_BTD, rotary[kind], cache, attention_masks.of(kind))
        cache.advance(num_new)
        return self.norm(x_BTD)

    def prefill(self, ids_BT: Tensor, cache: KVCache) -> None:
        """Stores what `encode` stores and returns nothing, so the last layer stops at its keys and values.

        Args:
            ids_BT: token ids, int64, that follow the cache without a gap.
            cache: written in place.
        """
        num_past, num_new = cache.length, ids_BT.shape[1]
        x_BTD = self.embed(ids_BT)
        positions_BT = torch.arange(num_past, num_past + num_new, device=ids_BT.device)[None]
        rotary = self.rotary(positions_BT, x_BTD.dtype)
        attention_masks = self._causal_masks(num_past, num_new)
        *body, last = self.layers
        assert isinstance(last, Layer)
        for layer in body:
            assert isinstance(layer, Layer)
            kind = layer.self_attn.kind
            x_BTD = layer.encode(x_BTD, rotary[kind], cache, attention_masks.of(kind))
        last.self_attn.remember(last.input_layernorm(x_BTD), rotary[last.self_attn.kind], cache)
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
        """Looks at a canvas in both directions, over the prompt in the cache.

        Args:
            canvas_BL: token ids, int64.
            cache: only read.
            soft_BLD: self-conditioning signal from `soft_embeddings`; None on the first step.
            positions_BL: int64; by default they follow the prompt.
            attention_masks: over visible prompt and canvas; by default everything is seen.

        Returns:
            Normalised hidden states [B, L, D].
        """
        if positions_BL is None:
            positions_BL = torch.arange(cache.length, cache.length + canvas_BL.shape[1], device=canvas_BL.device)[None]
        x_BLD = self.self_conditioning(self.embed(canvas_BL), soft_BLD)
        rotary = self.rotary(positions_BL, x_BLD.dtype)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            kind = layer.self_attn.kind
            x_BLD = layer.decode(x_BLD, rotary[kind], cache, attention_masks.of(kind))
        return self.norm(x_BLD)

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
        """Does `encode(block_BT)` and then `decode(canvas_BL)` in one pass, which reads the weights once.

        The way to fill more than one canvas holds: a finished block joins the prompt while the next one takes its first
        denoising step.

        Args:
            block_BT: token ids that follow the cache without a gap, at least one, int64.
            canvas_BL: token ids, int64.
            cache: the block is stored in it.
            soft_BLD: see `decode`.
            positions_BL: int64; by default they follow the block.
            attention_masks: of the canvas, see `decode`; what it sees of the prompt includes the block.

        Returns:
            Normalised hidden states of the canvas, [B, L, D].
        """
        num_past, num_block = cache.length, block_BT.shape[1]
        end = num_past + num_block
        if positions_BL is None:
            positions_BL = torch.arange(end, end + canvas_BL.shape[1], device=canvas_BL.device)[None]
        block_positions_BT = torch.arange(num_past, end, device=block_BT.device).expand(positions_BL.shape[0], -1)
        block_masks = self._causal_masks(num_past, num_block)
        x_BXD = torch.cat((self.embed(block_BT), self.self_conditioning(self.embed(canvas_BL), soft_BLD)), dim=1)
        rotary = self.rotary(torch.cat((block_positions_BT, positions_BL), dim=1), x_BXD.dtype)
        *body, last = self.layers
        for layer in body:
            assert isinstance(layer, Layer)
            kind = layer.self_attn.kind
            x_BXD = layer.decode_after(
                x_BXD, num_block, rotary[kind], cache, block_masks.of(kind), attention_masks.of(kind)
            )
        assert isinstance(last, Layer)
        kind = last.self_attn.kind
        # Of the block, the last layer's keys and values are all that anybody will read.
        x_BTD, x_BLD = x_BXD[:, :num_block], x_BXD[:, num_block:]
        block_rotary, canvas_rotary = _split(rotary[kind], num_block)
        last.self_attn.remember(last.input_layernorm(x_BTD), block_rotary, cache)
        x_BLD = last.decode(x_BLD, canvas_rotary, cache, attention_masks.of(kind), num_pending=num_block)
        cache.advance(num_block)
        return self.norm(x_BLD)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Returns scaled embeddings [B, T, D]; of a token that is certain, they are its `soft_embeddings`."""
        x_BTD = self.embed_tokens(ids_BT)
        return x_BTD * self._embed_scale(x_BTD.dtype)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """Returns softcapped logits [B, L, V] in float32."""
        return self.softcap(self.raw_logits(hidden_BLD.flatten(0, -2))).unflatten(0, hidden_BLD.shape[:-1])

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """Returns logits [N, V] before the softcap, in the weights' dtype."""
        return F.linear(hidden_ND, self.embed_tokens.weight)

    def softcap(self, raw_NV: Tensor) -> Tensor:
        """Returns softcapped logits in float32."""
        return self._ops.softcap(raw_NV, self.config.final_logit_softcapping)

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """Returns the expected embedding under each position's distribution, [B, L, D] in the weights' dtype."""
        weight_VD = self.embed_tokens.weight
        return probs_BLV.to(weight_VD.dtype) @ weight_VD * self._embed_scale(weight_VD.dtype)

    def _causal_masks(self, num_past: int, num_new: int) -> AttentionMasks:
        window = self.config.sliding_window
        return masks.causal(num_past=num_past, num_new=num_new, sliding_window=window, device=self.device)

    def _embed_scale(self, dtype: torch.dtype) -> float:
        """sqrt(D) as the checkpoint's dtype rounds it."""
        return torch.tensor(self.config.hidden_size**0.5, dtype=dtype).item()


def _split(rotary: Rotary, num_first: int) -> tuple[Rotary, Rotary]:
    """Returns the first `num_first` positions and the others."""
    cos, sin = rotary.cos, rotary.sin
    return (
        Rotary(cos=cos[:, :num_first], sin=sin[:, :num_first]),
        Rotary(cos=cos[:, num_first:], sin=sin[:, num_first:]),
    )
