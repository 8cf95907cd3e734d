"""The parts of a DiffusionGemma layer, and what prepares a canvas for the first one.

Hidden states in, hidden states out; keys and values go to a cache. Projections that read the same input are stored as
one matrix (`qkv_proj`, `gate_up_proj`); `checkpoint/loader.py` maps them to the file's names. Knows no token ids.

Formulas follow `transformers/models/diffusion_gemma/modeling_diffusion_gemma.py` (5.23.0).

Shape legend: B rows, T tokens in causal mode, L canvas positions, X = T + L, S key positions, D hidden, H query heads,
G key-value heads, d head size, N tokens over all rows or canvases, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.model.config import LayerKind, ModelConfig
from dgemma_engine.model.kv_cache import KVCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary


def token_embedding(vocab_size: int, hidden_size: int) -> nn.Embedding:
    """Returns an embedding for a checkpoint to fill; to draw initial values, torch would import its compiler.

    That import takes 1.3 s of a core and 100 MB.
    """
    return nn.Embedding.from_pretrained(torch.empty(vocab_size, hidden_size), freeze=False)


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
        """Causal mode: appends keys and values to the cache. Returns [B, T, D].

        Args:
            x_BTD: normalised hidden states.
            rotary: of their positions.
            cache: written in place.
            mask: over the last keys that the cache then holds; None for a single token.
        """
        return self.o_proj(self._attend_causal(*self._project(x_BTD, rotary), cache, mask))

    def store_kv(self, x_BTD: Tensor, rotary: Rotary, cache: KVCache) -> None:
        """Appends keys and values to the cache and attends to nothing."""
        _q, k, v = self._project(x_BTD, rotary)
        cache.append(self._layer_idx, k, v)

    def decode(
        self, x_BLD: Tensor, rotary: Rotary, cache: KVCache, mask: Tensor | None, *, num_pending: int = 0
    ) -> Tensor:
        """Canvas mode: reads the cache. Returns [B, L, D].

        Args:
            x_BLD: normalised hidden states.
            rotary: of their positions.
            cache: only read.
            mask: over the visible prompt and the canvas; None masks nothing.
            num_pending: tokens that this layer has appended in the same pass.
        """
        return self.o_proj(self._attend_canvas(*self._project(x_BLD, rotary), cache, mask, num_pending))

    def decode_together(self, x_1ND: Tensor, rotary: Rotary, passes: Sequence[CanvasPass]) -> Tensor:
        """Canvas mode of several canvases side by side in `x_1ND`, each over its own cache. Returns [1, N, D]."""
        heads = self._project(x_1ND, rotary)
        parts = (part.split([each.num_positions for each in passes], dim=2) for part in heads)
        attended = [
            self._attend_canvas(q, k, v, each.cache, each.attention_masks.of(self.kind), 0)
            for q, k, v, each in zip(*parts, passes, strict=True)
        ]
        return self.o_proj(torch.cat(attended, dim=1))

    def decode_after(
        self,
        x_BXD: Tensor,
        num_block: int,
        rotary: Rotary,
        cache: KVCache,
        block_mask: Tensor | None,
        canvas_mask: Tensor | None,
    ) -> Tensor:
        """Causal mode for the first `num_block` tokens, canvas mode over them for the others. Returns [B, X, D].

        Two attention calls, since each mode has keys of its own, and one canvas needs no mask.
        """
        q, k, v = self._project(x_BXD, rotary)
        n = num_block
        block_BTD = self._attend_causal(q[:, :, :n], k[:, :, :n], v[:, :, :n], cache, block_mask)
        canvas_BLD = self._attend_canvas(q[:, :, n:], k[:, :, n:], v[:, :, n:], cache, canvas_mask, num_block)
        return self.o_proj(torch.cat((block_BTD, canvas_BLD), dim=1))

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

    def _attend_causal(self, q: Tensor, k: Tensor, v: Tensor, cache: KVCache, mask: Tensor | None) -> Tensor:
        assert mask is not None or q.shape[2] == 1, "several tokens in causal mode need a mask"
        keys, values = cache.append(self._layer_idx, k, v)
        # A sliding layer reads no key that none of its queries can see, however long the prompt.
        num_keys = self._num_visible + 1 if mask is None else mask.shape[-1]
        return self._attend(q, keys[:, :, -num_keys:], values[:, :, -num_keys:], mask)

    def _attend_canvas(
        self, q: Tensor, k: Tensor, v: Tensor, cache: KVCache, mask: Tensor | None, num_pending: int
    ) -> Tensor:
        keys, values = cache.with_canvas(self._layer_idx, k, v, self._num_visible, num_pending=num_pending)
        return self._attend(q, keys, values, mask)

    def _attend(self, q_BHTd: Tensor, k_BGSd: Tensor, v_BGSd: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the heads' outputs side by side."""
        return self._ops.attention(q_BHTd, k_BGSd, v_BGSd, mask).transpose(1, 2).flatten(2)


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

    def decode(
        self, x_BLD: Tensor, rotary: Rotary, cache: KVCache, mask: Tensor | None, *, num_pending: int = 0
    ) -> Tensor:
        """Canvas mode, see `Attention.decode`. Returns [B, L, D]."""
        attended = self.self_attn.decode(self.input_layernorm(x_BLD), rotary, cache, mask, num_pending=num_pending)
        return self._finish(x_BLD, attended) * self.layer_scalar

    def decode_together(self, x_1ND: Tensor, rotary: Rotary, passes: Sequence[CanvasPass]) -> Tensor:
        """Canvas mode of several canvases, see `Attention.decode_together`. Returns [1, N, D]."""
        attended = self.self_attn.decode_together(self.input_layernorm(x_1ND), rotary, passes)
        return self._finish(x_1ND, attended) * self.layer_scalar

    def decode_after(
        self,
        x_BXD: Tensor,
        num_block: int,
        rotary: Rotary,
        cache: KVCache,
        block_mask: Tensor | None,
        canvas_mask: Tensor | None,
    ) -> Tensor:
        """Both modes at once, see `Attention.decode_after`: every weight is read once. Returns [B, X, D]."""
        normed_BXD = self.input_layernorm(x_BXD)
        attended = self.self_attn.decode_after(normed_BXD, num_block, rotary, cache, block_mask, canvas_mask)
        num_canvas = x_BXD.shape[1] - num_block
        scalar_X = torch.cat((self.encoder_layer_scalar.expand(num_block), self.layer_scalar.expand(num_canvas)))
        return self._finish(x_BXD, attended) * scalar_X[:, None]

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
    """Adds the self-conditioning signal to the canvas embeddings, and normalises them."""

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
