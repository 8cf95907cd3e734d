"""One layer of a Llama: attention and a gated MLP, each on a norm of the residual. Modes differ in `attend` alone.

Follows `transformers/models/llama/modeling_llama.py` (5.23.0). Shape legend: B rows, T tokens, S key positions,
D hidden, H query heads, G key-value heads, d head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.model.layers import Norm
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.rotary import Rotary

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Index of the layer, scaled queries [B, H, T, d], keys and values [B, G, T, d] to the heads' outputs [B, H, T, d]."""


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
        self.qkv_proj = nn.Linear(size, num_inputs * self._head_size, bias=False)
        self.o_proj = nn.Linear(self._num_heads * self._head_size, size, bias=False)
        self.gate_up_proj = nn.Linear(size, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)
        self.input_layernorm = Norm(size, eps, ops)
        self.post_attention_layernorm = Norm(size, eps, ops)

    def forward(self, x_BTD: Tensor, rotary: Rotary, attend: Attend) -> Tensor:
        """Returns the residual after this layer, [B, T, D]."""
        heads_BHTd = attend(self._layer_idx, *self.project(x_BTD, rotary))
        x_BTD = x_BTD + self.o_proj(heads_BHTd.transpose(1, 2).flatten(2))
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.down_proj(F.silu(gate) * up)

    def project(self, x_BTD: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the queries, divided by the root of the head's size, keys and values, as `Attend` takes them."""
        heads_BTNd = self.qkv_proj(self.input_layernorm(x_BTD)).unflatten(-1, (-1, self._head_size))
        qk_BTNd, v_BTGd = heads_BTNd.tensor_split([self._num_heads + self._num_kv_heads], dim=2)
        qk_BNTd = self._ops.apply_rotary(qk_BTNd, rotary.cos, rotary.sin).transpose(1, 2)
        q_BHTd = qk_BNTd[:, : self._num_heads] * self._head_size**-0.5
        return q_BHTd, qk_BNTd[:, self._num_heads :], v_BTGd.transpose(1, 2)
