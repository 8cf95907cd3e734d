"""DiffusionGemma's text model in plain PyTorch, two modes over one set of weights.

`encode` is causal: it writes a prompt's keys and values into a cache and returns hidden states, hence exact
left-to-right probabilities. `decode` reads that cache, never writes it, and looks at its canvas in both directions.
Knows tensors and token ids; knows nothing of files, sampling, holes or text.

The architecture follows `transformers/models/diffusion_gemma/modeling_diffusion_gemma.py` (5.23.0). Projections that
read the same input are stored as one matrix (`qkv_proj`, `gate_up_proj`); `weights.py` maps them to the file's names.

Shape legend: B rows, T prompt tokens, L canvas positions, S key positions, D hidden, H query heads, G key-value heads,
d head size, V vocabulary, N tokens over all rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine import masks
from dgemma_engine.cache import KVCache
from dgemma_engine.config import LayerKind, ModelConfig
from dgemma_engine.masks import ALL_VISIBLE, AttentionMasks
from dgemma_engine.ops import Ops
from dgemma_engine.rotary import Rotary, RotaryTable


class Norm(nn.Module):
    """RMS norm with a learned scale."""

    def __init__(self, size: int, eps: float, ops: Ops) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps
        self._ops = ops

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` normalised over its last dimension."""
        return self._ops.rms_norm(x, self.weight, self._eps)


class Attention(nn.Module):
    """Attention of one layer. On full layers the values are the raw keys (no projection of their own)."""

    def __init__(self, config: ModelConfig, layer_idx: int, ops: Ops) -> None:
        super().__init__()
        self.kind = config.layer_kinds[layer_idx]
        self._layer_idx = layer_idx
        self._ops = ops
        self._eps = config.rms_norm_eps
        self._num_visible = (
            config.sliding_window - 1 if self.kind is LayerKind.SLIDING else config.max_position_embeddings
        )
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_kv_heads[self.kind]
        self.head_dim = config.head_dim[self.kind]
        num_inputs = self.num_heads + self.num_kv_heads * (2 if self.kind is LayerKind.SLIDING else 1)
        self.qkv_proj = nn.Linear(config.hidden_size, num_inputs * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = Norm(self.head_dim, config.rms_norm_eps, ops)
        self.k_norm = Norm(self.head_dim, config.rms_norm_eps, ops)

    def encode(self, x_BTD: Tensor, rotary: Rotary, cache: KVCache, mask: Tensor | None) -> Tensor:
        """Causal mode: appends keys and values to the cache. Returns [B, T, D]."""
        q, k, v = self._project(x_BTD, rotary)
        return self._attend(q, *cache.append(self._layer_idx, k, v), mask)

    def remember(self, x_BTD: Tensor, rotary: Rotary, cache: KVCache) -> None:
        """Appends keys and values to the cache and attends to nothing."""
        _q, k, v = self._project(x_BTD, rotary)
        cache.append(self._layer_idx, k, v)

    def decode(self, x_BLD: Tensor, rotary: Rotary, cache: KVCache, mask: Tensor | None) -> Tensor:
        """Canvas mode: reads the cache. Returns [B, L, D]."""
        q, k, v = self._project(x_BLD, rotary)
        return self._attend(q, *cache.with_canvas(self._layer_idx, k, v, self._num_visible), mask)

    def _project(self, x_BTD: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        # One norm over all heads serves queries, keys and values: their scales come after it, and values have none.
        heads = self.qkv_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        normed = self._ops.rms_norm(heads.float(), None, self._eps)
        num_rotated = self.num_heads + self.num_kv_heads
        scales = (self.q_norm.weight.expand(self.num_heads, -1), self.k_norm.weight.expand(self.num_kv_heads, -1))
        qk_BTHd = (normed[:, :, :num_rotated] * torch.cat(scales)).type_as(x_BTD)
        qk_BHTd = self._ops.apply_rotary(qk_BTHd, rotary.cos, rotary.sin).transpose(1, 2)
        v_BTGd = normed[:, :, -self.num_kv_heads :].type_as(x_BTD)
        return qk_BHTd[:, : self.num_heads], qk_BHTd[:, self.num_heads :], v_BTGd.transpose(1, 2)

    def _attend(self, q_BHTd: Tensor, k_BGSd: Tensor, v_BGSd: Tensor, mask: Tensor | None) -> Tensor:
        out_BHTd = self._ops.attention(q_BHTd, k_BGSd, v_BGSd, mask)
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    """`down(gelu_tanh(gate(x)) * up(x))`."""

    def __init__(self, hidden_size: int, intermediate_size: int, ops: Ops) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self._ops = ops

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of `x`'s shape."""
        return self.down_proj(self._ops.gated_gelu(self.gate_up_proj(x)))


class Router(nn.Module):
    """Chooses experts from the normalised residual, through a scale of its own (not through the MLP's)."""

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))
        self._config = config
        self._ops = ops

    def forward(self, normed_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Returns routing weights [N, K] and expert indices [N, K].

        Args:
            normed_ND: the residual through a norm without scale, float32.
        """
        scaled_ND = normed_ND * self.scale * self._config.hidden_size**-0.5
        scores_NE = self.proj(scaled_ND.to(self.proj.weight.dtype))
        return self._ops.route(scores_NE, self.per_expert_scale, self._config.top_k_experts)


class Experts(nn.Module):
    """Gated MLPs, one per expert, stored as the checkpoint stores them."""

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        num, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(num, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(num, hidden, inner))
        self._ops = ops

    def forward(self, x_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor) -> Tensor:
        """Returns the weighted sum of the chosen experts, [N, D]."""
        return self._ops.experts(x_ND, weights_NK, indices_NK, self.gate_up_proj, self.down_proj)


class Layer(nn.Module):
    """Attention, then a dense MLP beside a mixture of experts; the two `layer_scalar`s are buffers of their own."""

    layer_scalar: Tensor
    encoder_layer_scalar: Tensor

    def __init__(self, config: ModelConfig, layer_idx: int, ops: Ops) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self._eps = eps
        self._ops = ops
        self.self_attn = Attention(config, layer_idx, ops)
        self.mlp = GatedMLP(size, config.intermediate_size, ops)
        self.router = Router(config, ops)
        self.experts = Experts(config, ops)
        self.input_layernorm = Norm(size, eps, ops)
        self.post_attention_layernorm = Norm(size, eps, ops)
        self.pre_feedforward_layernorm = Norm(size, eps, ops)
        self.post_feedforward_layernorm_1 = Norm(size, eps, ops)
        self.pre_feedforward_layernorm_2 = Norm(size, eps, ops)
        self.post_feedforward_layernorm_2 = Norm(size, eps, ops)
        self.post_feedforward_layernorm = Norm(size, eps, ops)
        self.register_buffer("layer_scalar", torch.ones(1))
        self.register_buffer("encoder_layer_scalar", torch.ones(1))

    def encode(self, x_BTD: Tensor, rotary: Rotary, cache: KVCache, mask: Tensor | None) -> Tensor:
        """Causal mode. Returns [B, T, D]."""
        attended = self.self_attn.encode(self.input_layernorm(x_BTD), rotary, cache, mask)
        return self._finish(x_BTD, attended) * self.encoder_layer_scalar

    def decode(self, x_BLD: Tensor, rotary: Rotary, cache: KVCache, mask: Tensor | None) -> Tensor:
        """Canvas mode. Returns [B, L, D]."""
        attended = self.self_attn.decode(self.input_layernorm(x_BLD), rotary, cache, mask)
        return self._finish(x_BLD, attended) * self.layer_scalar

    def _finish(self, x_BTD: Tensor, attended_BTD: Tensor) -> Tensor:
        residual_BTD = x_BTD + self.post_attention_layernorm(attended_BTD)
        # Three readers with a scale each share one norm of the residual.
        normed_BTD = self._ops.rms_norm(residual_BTD.float(), None, self._eps)
        dense_in_BTD = (normed_BTD * self.pre_feedforward_layernorm.weight).type_as(x_BTD)
        dense_BTD = self.post_feedforward_layernorm_1(self.mlp(dense_in_BTD))
        normed_ND = normed_BTD.flatten(0, 1)
        weights_NK, indices_NK = self.router(normed_ND)
        sparse_in_ND = (normed_ND * self.pre_feedforward_layernorm_2.weight).type_as(x_BTD)
        sparse_ND = self.experts(sparse_in_ND, weights_NK, indices_NK)
        sparse_BTD = self.post_feedforward_layernorm_2(sparse_ND).view_as(residual_BTD)
        return residual_BTD + self.post_feedforward_layernorm(dense_BTD + sparse_BTD)


class SelfConditioning(nn.Module):
    """Adds what the last denoising step believed to the canvas embeddings; without a last step its norm stays."""

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.pre_norm = Norm(config.hidden_size, config.rms_norm_eps, ops)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, ops)
        self._eps = config.rms_norm_eps
        self._ops = ops

    def forward(self, x_BLD: Tensor, soft_BLD: Tensor | None) -> Tensor:
        """Returns [B, L, D]; `soft_BLD` None is the first step and adds nothing (the MLP has no bias)."""
        if soft_BLD is not None:
            x_BLD = x_BLD + self.mlp(self.pre_norm(soft_BLD))
        return self._ops.rms_norm(x_BLD, None, self._eps)


class DiffusionGemma(nn.Module):
    """The text model.

    Args:
        config: dimensions.
        ops: the operations it calls.
    """

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
        x_BTD = self._embed(ids_BT)
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
        x_BTD = self._embed(ids_BT)
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
        x_BLD = self.self_conditioning(self._embed(canvas_BL), soft_BLD)
        rotary = self.rotary(positions_BL, x_BLD.dtype)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            kind = layer.self_attn.kind
            x_BLD = layer.decode(x_BLD, rotary[kind], cache, attention_masks.of(kind))
        return self.norm(x_BLD)

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """Returns softcapped logits [B, L, V] in float32."""
        logits_BLV = F.linear(hidden_BLD, self.embed_tokens.weight)
        return self._ops.softcap(logits_BLV, self.config.final_logit_softcapping)

    def soft_embeddings(self, probs_BLV: Tensor) -> Tensor:
        """Returns the expected embedding under each position's distribution, [B, L, D] in the weights' dtype."""
        weight_VD = self.embed_tokens.weight
        return probs_BLV.to(weight_VD.dtype) @ weight_VD * self._embed_scale(weight_VD.dtype)

    def _causal_masks(self, num_past: int, num_new: int) -> AttentionMasks:
        window = self.config.sliding_window
        return masks.causal(num_past=num_past, num_new=num_new, sliding_window=window, device=self.device)

    def _embed(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.embed_tokens(ids_BT)
        return x_BTD * self._embed_scale(x_BTD.dtype)

    def _embed_scale(self, dtype: torch.dtype) -> float:
        """sqrt(D) as the checkpoint's dtype rounds it."""
        return torch.tensor(self.config.hidden_size**0.5, dtype=dtype).item()
