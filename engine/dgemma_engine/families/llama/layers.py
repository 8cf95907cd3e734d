"""One layer of a Llama: attention and a gated MLP, each on a norm of the residual. Modes differ in `attend` alone.

Follows `transformers/models/llama/modeling_llama.py` (5.23.0); with a bias of queries, keys and values it is one of
`qwen2`, with norms of queries and keys one of `qwen3`. Shape legend: B rows, T tokens, S key positions,
D hidden, H query heads, G key-value heads, d head size,
O outputs of a projection (of attention: the heads side by side), I its inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.model.layers import Norm
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Index of the layer, scaled queries [B, H, T, d], keys and values [B, G, T, d] to the heads' outputs [B, H, T, d]."""


class LowRank(nn.Module):
    """`b @ a @ x`: what an adapter adds to one projection.

    Args:
        a_RI: from the inputs.
        b_OR: to the outputs.
    """

    def __init__(self, a_RI: Tensor, b_OR: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a_RI, requires_grad=False)
        self.b = nn.Parameter(b_OR, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., O] of `x` [..., I]."""
        return F.linear(F.linear(x, self.a), self.b)


class LayerTerms(nn.Module):
    """What an adapter adds to the projections of one layer."""

    def __init__(self, qkv_proj: LowRank, o_proj: LowRank, gate_up_proj: LowRank, down_proj: LowRank) -> None:
        super().__init__()
        self.qkv_proj, self.o_proj = qkv_proj, o_proj
        self.gate_up_proj, self.down_proj = gate_up_proj, down_proj


class LlamaLayer(nn.Module):
    """Attention, then the MLP."""

    def __init__(self, config: LlamaConfig, layer_idx: int, ops: Ops) -> None:
        super().__init__()
        size, inner, eps = config.hidden_size, config.intermediate_size, config.rms_norm_eps
        self._layer_idx = layer_idx
        self._ops = ops
        self._num_heads, self._num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_size = config.head_size
        num_inputs = self._num_heads + 2 * self._num_kv_heads
        self.qkv_proj = nn.Linear(size, num_inputs * self._head_size, bias=config.has_qkv_bias)
        self.q_norm = Norm(self._head_size, eps, ops) if config.has_qk_norm else None
        self.k_norm = Norm(self._head_size, eps, ops) if config.has_qk_norm else None
        self.o_proj = nn.Linear(self._num_heads * self._head_size, size, bias=False)
        self.gate_up_proj = nn.Linear(size, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)
        self.input_layernorm = Norm(size, eps, ops)
        self.post_attention_layernorm = Norm(size, eps, ops)

    def forward(self, x_BTD: Tensor, rotary: Rotary, attend: Attend, terms: LayerTerms | None = None) -> Tensor:
        """Returns the residual after this layer, [B, T, D]; `terms` are added to its projections."""
        heads_BHTd = attend(self._layer_idx, *self.project(x_BTD, rotary, terms))
        heads_BTO = heads_BHTd.transpose(1, 2).flatten(2)
        out_BTD, normed = self.o_proj(heads_BTO), self.post_attention_layernorm
        x_BTD = x_BTD + (out_BTD if terms is None else out_BTD + terms.o_proj(heads_BTO))
        inner_in_BTD = normed(x_BTD)
        gate_up = self.gate_up_proj(inner_in_BTD)
        gate, up = (gate_up if terms is None else gate_up + terms.gate_up_proj(inner_in_BTD)).chunk(2, dim=-1)
        inner = F.silu(gate) * up
        down_BTD = self.down_proj(inner)
        return x_BTD + (down_BTD if terms is None else down_BTD + terms.down_proj(inner))

    def project(self, x_BTD: Tensor, rotary: Rotary, terms: LayerTerms | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the queries, divided by the root of the head's size, keys and values, as `Attend` takes them."""
        normed_BTD = self.input_layernorm(x_BTD)
        heads = self.qkv_proj(normed_BTD)
        heads = heads if terms is None else heads + terms.qkv_proj(normed_BTD)
        heads_BTNd = heads.unflatten(-1, (-1, self._head_size))
        qk_BTNd, v_BTGd = heads_BTNd.tensor_split([self._num_heads + self._num_kv_heads], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHd, k_BTGd = qk_BTNd.tensor_split([self._num_heads], dim=2)
            qk_BTNd = torch.cat((self.q_norm(q_BTHd), self.k_norm(k_BTGd)), dim=2)
        qk_BNTd = self._ops.apply_rotary(qk_BTNd, rotary.cos, rotary.sin).transpose(1, 2)
        q_BHTd = qk_BNTd[:, : self._num_heads] * self._head_size**-0.5
        return q_BHTd, qk_BNTd[:, self._num_heads :], v_BTGd.transpose(1, 2)
