"""DiffusionGemma's text model in plain PyTorch, two modes over one set of weights.

`encode` is causal: it writes a prompt's keys and values into a cache and returns hidden states, hence exact
left-to-right probabilities. `decode` reads that cache, never writes it, and attends to its canvas in both directions.
`decode_after` does both in one pass. Works on tensors and token ids, without files, sampling, holes or text.

The architecture follows `transformers/models/diffusion_gemma/modeling_diffusion_gemma.py` (5.23.0).

Shape legend: B rows, T prompt tokens, L canvas positions, X = T + L, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.model import attention_masks as masks
from dgemma_engine.model.attention_masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.model.canvas_pass import CanvasPass, joined_soft
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.diffusion_model import ModelDefaults
from dgemma_engine.model.kv_cache import KVCache
from dgemma_engine.model.layers import Attention, Layer, Norm, SelfConditioning, token_embedding
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary, RotaryTable

__all__ = ["Attention", "DiffusionGemma", "Layer"]


# A pass of this many positions takes about as long as reading the weights of the whole model.
_MOST_TOGETHER = 512


class DiffusionGemma(nn.Module, ModelDefaults):
    """The text model; implements `DiffusionModel`.

    Args:
        config: dimensions.
        ops: the operations it calls.
    """

    has_self_conditioning = True
    most_together = _MOST_TOGETHER

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.config = config
        self.ops = ops
        self.embed_tokens = token_embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i, ops) for i in range(len(config.layer_kinds)))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps, ops)
        self.self_conditioning = SelfConditioning(config, ops)
        self.rotary = RotaryTable(config)

    @property
    def device(self) -> torch.device:
        """See `DiffusionModel.device`."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """See `DiffusionModel.dtype`."""
        return self.embed_tokens.weight.dtype

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
        """See `DiffusionModel.encode`."""
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
        """See `DiffusionModel.prefill`; the last layer stops at its keys and values."""
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
        last.self_attn.store_kv(last.input_layernorm(x_BTD), rotary[last.self_attn.kind], cache)
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
        """See `DiffusionModel.decode_after`; one pass."""
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
        # Of the block, only the last layer's keys and values are read later.
        x_BTD, x_BLD = x_BXD[:, :num_block], x_BXD[:, num_block:]
        block_rotary, canvas_rotary = _split(rotary[kind], num_block)
        last.self_attn.store_kv(last.input_layernorm(x_BTD), block_rotary, cache)
        x_BLD = last.decode(x_BLD, canvas_rotary, cache, attention_masks.of(kind), num_pending=num_block)
        cache.advance(num_block)
        return self.norm(x_BLD)

    def decode_together(self, passes: Sequence[CanvasPass]) -> list[Tensor]:
        """See `DiffusionModel.decode_together`."""
        x_1ND = self.embed(torch.cat([each.canvas_1L for each in passes], dim=1))
        x_1ND = self.self_conditioning(x_1ND, joined_soft(passes))
        rotary = self.rotary(torch.cat([each.positions(self.device) for each in passes], dim=1), x_1ND.dtype)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x_1ND = layer.decode_together(x_1ND, rotary[layer.self_attn.kind], passes)
        return list(self.norm(x_1ND).split([each.num_positions for each in passes], dim=1))

    def embed(self, ids_BT: Tensor) -> Tensor:
        """See `DiffusionModel.embed`."""
        x_BTD = self.embed_tokens(ids_BT)
        return x_BTD * embed_scale(self.config.hidden_size, x_BTD.dtype)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """See `DiffusionModel.logits`."""
        raw_NV = self.raw_logits(hidden_BLD.flatten(0, -2))
        return self.ops.softcap(raw_NV, self.config.final_logit_softcapping).unflatten(0, hidden_BLD.shape[:-1])

    def raw_logits(self, hidden_ND: Tensor) -> Tensor:
        """See `DiffusionModel.raw_logits`."""
        return F.linear(hidden_ND, self.embed_tokens.weight)

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """See `DiffusionModel.soft_embeddings`."""
        weight_VD = self.embed_tokens.weight
        return probs_BLV.to(weight_VD.dtype) @ weight_VD * embed_scale(self.config.hidden_size, weight_VD.dtype)

    def _causal_masks(self, num_past: int, num_new: int) -> AttentionMasks:
        window = self.config.sliding_window
        return masks.causal(num_past=num_past, num_new=num_new, sliding_window=window, device=self.device)


def embed_scale(hidden_size: int, dtype: torch.dtype) -> float:
    """Returns sqrt(D) as the checkpoint's dtype rounds it: what embeddings are multiplied by."""
    return torch.tensor(hidden_size**0.5, dtype=dtype).item()


def _split(rotary: Rotary, num_first: int) -> tuple[Rotary, Rotary]:
    """Returns the first `num_first` positions and the others."""
    cos, sin = rotary.cos, rotary.sin
    return (
        Rotary(cos=cos[:, :num_first], sin=sin[:, :num_first]),
        Rotary(cos=cos[:, num_first:], sin=sin[:, num_first:]),
    )
