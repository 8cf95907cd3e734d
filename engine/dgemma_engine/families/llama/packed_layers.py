"""The layers of a small Llama for a processor, in few operations; see `backends.cpu.layer_stack`.

Hidden states stay float32 from layer to layer; matrices are packed once, those that read the same input are one
product. Without gradients. Weights that change afterwards are not read (docs/decisions/0013). Factors of a repository's
adapter come with each pass; they stay float32, in which a product of one row with so few columns takes a fifth of the
time that oneDNN takes to begin.

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), D hidden, H query heads,
G key-value heads, A heads of all kinds, O width of the query heads or outputs of a projection, I its inputs, R rank,
d head size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from dgemma_kernels.packing.cpu import PackedGate, PackedMatrix
from dgemma_kernels.packing.few_bits import ProductKinds, Unmerged
from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import GroupedAttention, write_kv
from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.backends.cpu.layer_stack import PackedAdapter
from dgemma_engine.families.llama.adaptation import PROJECTIONS
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.layers import LayerTerms, LlamaLayer, LowRank


class PackedLlamaLayer(nn.Module):
    """One layer.

    Args:
        layer: whose weights it takes.
        terms: what an adapter adds in canvas mode; None adds nothing.
        config: dimensions.
        kinds: what products read.
        unmerged: of each projection that an adapter was merged into, by its name.
    """

    def __init__(
        self,
        layer: LlamaLayer,
        terms: LayerTerms | None,
        config: LlamaConfig,
        kinds: ProductKinds,
        unmerged: Mapping[str, Unmerged],
    ) -> None:
        super().__init__()
        num_heads, num_kv_heads, head_size = config.num_attention_heads, config.num_key_value_heads, config.head_size
        self.heads = _Heads(layer, terms, config, kinds, unmerged.get("qkv_proj"))
        self.attend = GroupedAttention(num_heads, num_kv_heads, head_size, head_size**-0.5)
        self._out = PackedMatrix(layer.o_proj.weight, kinds.row, unmerged=unmerged.get("o_proj"))
        self._norm = RmsNorm(layer.post_attention_layernorm.weight, config.hidden_size, config.rms_norm_eps)
        gate, up = layer.gate_up_proj.weight.chunk(2)
        self._inner = PackedGate(
            gate, up, "silu", kinds.row, int8=kinds.int8_mlp, unmerged=unmerged.get("gate_up_proj")
        )
        self._down = PackedMatrix(
            layer.down_proj.weight, kinds.row, int8=kinds.int8_mlp, unmerged=unmerged.get("down_proj")
        )
        # Rows that are rounded to 8 bits need no rounding before, but for the terms of an adapter, which are not.
        levels = min(self._inner.few_bits.input_levels, self._down.few_bits.input_levels)
        is_rounded_once = levels > 0 and terms is None
        self._dtype = torch.float32 if is_rounded_once else layer.o_proj.weight.dtype
        self._terms = None if terms is None else _FeedTerms(terms)

    def feed(self, x_PD: Tensor, attended_PO: Tensor, num_causal: int, factors: list[Tensor]) -> Tensor:
        """Returns the layer's output, float32, of its input and the attention's output.

        Args:
            x_PD: float32.
            attended_PO: of the heads, side by side.
            num_causal: tokens in causal mode; 0 is a canvas, to which the canvas adapter's terms are added.
            factors: of this layer, see `pack_adapter`; empty adds nothing.
        """
        x_PD = x_PD + self._out(attended_PO)
        if self._terms is not None and num_causal == 0:
            x_PD.add_(self._terms.out(attended_PO))
        if len(factors) > 0:
            _add_product(x_PD, _reduced(attended_PO, factors[4]), factors[5])
        normed_PD = self._norm(x_PD).to(self._dtype)
        added = self._inner_terms(normed_PD, num_causal, factors)
        inner_PI = self._inner.added_to(normed_PD, added[0], added[1]) if len(added) > 0 else self._inner(normed_PD)
        x_PD.add_(self._down(inner_PI))
        if self._terms is not None and num_causal == 0:
            x_PD.add_(self._terms.down(inner_PI))
        if len(factors) > 0:
            _add_product(x_PD, _reduced(inner_PI, factors[9]), factors[10])
        return x_PD

    def _inner_terms(self, normed_PD: Tensor, num_causal: int, factors: list[Tensor]) -> list[Tensor]:
        """Returns what adapters add to gate and up, [P, I] each; nothing where there is no adapter."""
        added: list[Tensor] = []
        if self._terms is not None and num_causal == 0:
            gate_PI, up_PI = self._terms.inner(normed_PD).chunk(2, -1)
            added = [gate_PI, up_PI]
        if len(factors) > 0:
            gate_PR, up_PR = _reduced(normed_PD, factors[6]).chunk(2, -1)
            gate_PI, up_PI = torch.mm(gate_PR, factors[7]), torch.mm(up_PR, factors[8])
            added = [gate_PI, up_PI] if len(added) == 0 else [gate_PI + added[0], up_PI + added[1]]
        return added


class _FeedTerms(nn.Module):
    """What an adapter adds to the projections after the attention."""

    def __init__(self, terms: LayerTerms) -> None:
        super().__init__()
        self.out, self.inner, self.down = _terms(terms.o_proj), _terms(terms.gate_up_proj), _terms(terms.down_proj)


class _Heads(nn.Module):
    """Queries, keys and values: rotated, keys and values stored."""

    def __init__(
        self,
        layer: LlamaLayer,
        terms: LayerTerms | None,
        config: LlamaConfig,
        kinds: ProductKinds,
        unmerged: Unmerged | None,
    ) -> None:
        super().__init__()
        self._norm = RmsNorm(layer.input_layernorm.weight, config.hidden_size, config.rms_norm_eps)
        self._dtype = layer.qkv_proj.weight.dtype
        self._qkv = PackedMatrix(layer.qkv_proj.weight, kinds.row, unmerged=unmerged)
        self._has_bias = config.has_qkv_bias
        self._bias_A = layer.qkv_proj.bias.detach().float() if config.has_qkv_bias else torch.empty(0)
        self._terms = None if terms is None else _terms(terms.qkv_proj)
        self._num_heads, self._head_size = config.num_attention_heads, config.head_size
        self._num_rotated = config.num_attention_heads + config.num_key_value_heads

    def forward(
        self,
        x_PD: Tensor,
        new: list[Tensor],
        cos_N1d: Tensor,
        sin_N1d: Tensor,
        num_causal: int,
        factors: list[Tensor],
    ) -> Tensor:
        """Writes keys and values to `new`; returns the queries, [N, H, d], float32. See `PackedLlamaLayer.feed`."""
        num_tokens = cos_N1d.size(0)
        normed_PD = self._norm(x_PD).to(self._dtype)
        heads_PA = self._qkv(normed_PD).float()
        if self._has_bias:
            heads_PA.add_(self._bias_A)
        if self._terms is not None and num_causal == 0:
            heads_PA.add_(self._terms(normed_PD))
        if len(factors) > 0:
            reduced_3PR, first = _reduced(normed_PD, factors[0]).chunk(3, -1), 0
            for reduced_PR, b_RO in zip(reduced_3PR, factors[1:4]):  # noqa: B905, `strict` is not for TorchScript
                _add_product(heads_PA[:, first : first + b_RO.size(1)], reduced_PR, b_RO)
                first += b_RO.size(1)
        heads_NAd = heads_PA[:num_tokens].view(num_tokens, -1, self._head_size)
        rotated_NAd = heads_NAd[:, : self._num_rotated]
        swapped_NAd = rotated_NAd.roll(self._head_size // 2, -1)
        rotated_NAd.mul_(cos_N1d).addcmul_(swapped_NAd, sin_N1d)
        write_kv(heads_NAd[:, self._num_heads :], new)
        return heads_NAd[:, : self._num_heads]


def pack_adapter(tensors: Mapping[str, Tensor], num_layers: int) -> PackedAdapter:
    """Returns an adapter as the layers read it: of each projection in both modes, its inputs' factor and its outputs'.

    Projections of the same input have one factor for it, [I, 3 * R] of queries, keys and values and [I, 2 * R] of gate
    and up; the others are [R, O]. The order is a of the first, then their b; the same of the attention's output, of
    gate and up, and of the MLP's output.

    Args:
        tensors: factors by the names of an adapter's file, float32.
        num_layers: of the model.
    """
    layers: list[list[Tensor]] = []
    for i in range(num_layers):
        factors: list[Tensor] = []
        for keys in PROJECTIONS.values():
            factors.append(torch.cat([tensors[f"layers.{i}.{key}.a"] for key in keys]).t().contiguous())
            factors += [tensors[f"layers.{i}.{key}.b"].t().contiguous() for key in keys]
        layers.append(factors)
    return PackedAdapter(layers=layers)


def _reduced(x_PI: Tensor, a_IR: Tensor) -> Tensor:
    return torch.mm(x_PI.float(), a_IR)


def _add_product(out_PO: Tensor, x_PR: Tensor, b_RO: Tensor) -> None:
    out_PO.addmm_(x_PR, b_RO)


def _terms(terms: LowRank) -> nn.Module:
    return nn.Sequential(PackedMatrix(terms.a), PackedMatrix(terms.b))
