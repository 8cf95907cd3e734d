"""The layers of a small Llama for a processor, in few operations; see `backends.cpu.layer_stack`.

Hidden states stay float32 from layer to layer; matrices are packed once, those that read the same input are one
product. Without gradients. Weights that change afterwards are not read (docs/decisions/0013).

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), D hidden, H query heads,
G key-value heads, A heads of all kinds, O width of the query heads, d head size.
"""

from __future__ import annotations

from dgemma_kernels.packing.cpu import OneRow, PackedGate, PackedMatrix
from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import GroupedAttention
from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.layers import LayerTerms, LlamaLayer, LowRank


class PackedLlamaLayer(nn.Module):
    """One layer.

    Args:
        layer: whose weights it takes.
        terms: what an adapter adds in canvas mode; None adds nothing.
        config: dimensions.
        one_row: what a product with one row reads.
    """

    def __init__(self, layer: LlamaLayer, terms: LayerTerms | None, config: LlamaConfig, one_row: OneRow) -> None:
        super().__init__()
        num_heads, num_kv_heads, head_size = config.num_attention_heads, config.num_key_value_heads, config.head_size
        self.heads = _Heads(layer, terms, config, one_row)
        self.attend = GroupedAttention(num_heads, num_kv_heads, head_size, head_size**-0.5)
        self._dtype = layer.o_proj.weight.dtype
        self._out = PackedMatrix(layer.o_proj.weight, one_row)
        self._norm = RmsNorm(layer.post_attention_layernorm.weight, config.hidden_size, config.rms_norm_eps)
        gate, up = layer.gate_up_proj.weight.chunk(2)
        self._inner = PackedGate(gate, up, "silu", one_row)
        self._down = PackedMatrix(layer.down_proj.weight, one_row)
        self._terms = None if terms is None else _FeedTerms(terms)

    def feed(self, x_PD: Tensor, attended_PO: Tensor, num_causal: int) -> Tensor:
        """Returns the layer's output, float32, of its input and the attention's output.

        Args:
            x_PD: float32.
            attended_PO: of the heads, side by side.
            num_causal: tokens in causal mode; 0 is a canvas, to which an adapter's terms are added.
        """
        if self._terms is not None and num_causal == 0:
            x_PD = x_PD + self._out(attended_PO) + self._terms.out(attended_PO)
            normed_PD = self._norm(x_PD).to(self._dtype)
            gate_PI, up_PI = self._terms.inner(normed_PD).chunk(2, -1)
            inner_PI = self._inner.added_to(normed_PD, gate_PI, up_PI)
            return x_PD.add_(self._down(inner_PI)).add_(self._terms.down(inner_PI))
        x_PD = x_PD + self._out(attended_PO)
        return x_PD.add_(self._down(self._inner(self._norm(x_PD).to(self._dtype))))


class _FeedTerms(nn.Module):
    """What an adapter adds to the projections after the attention."""

    def __init__(self, terms: LayerTerms) -> None:
        super().__init__()
        self.out, self.inner, self.down = _terms(terms.o_proj), _terms(terms.gate_up_proj), _terms(terms.down_proj)


class _Heads(nn.Module):
    """Queries, keys and values: rotated, keys and values stored."""

    def __init__(self, layer: LlamaLayer, terms: LayerTerms | None, config: LlamaConfig, one_row: OneRow) -> None:
        super().__init__()
        self._dtype = layer.qkv_proj.weight.dtype
        self._norm = RmsNorm(layer.input_layernorm.weight, config.hidden_size, config.rms_norm_eps)
        self._qkv = PackedMatrix(layer.qkv_proj.weight, one_row)
        self._terms = None if terms is None else _terms(terms.qkv_proj)
        self._num_heads, self._head_size = config.num_attention_heads, config.head_size
        self._num_rotated = config.num_attention_heads + config.num_key_value_heads

    def forward(self, x_PD: Tensor, new_2GNd: Tensor, cos_N1d: Tensor, sin_N1d: Tensor, num_causal: int) -> Tensor:
        """Writes keys and values to `new`; returns the queries, [N, H, d], float32. See `PackedLlamaLayer.feed`."""
        num_tokens = cos_N1d.size(0)
        normed_PD = self._norm(x_PD).to(self._dtype)
        heads_PA = self._qkv(normed_PD).float()
        if self._terms is not None and num_causal == 0:
            heads_PA.add_(self._terms(normed_PD))
        heads_NAd = heads_PA[:num_tokens].view(num_tokens, -1, self._head_size)
        rotated_NAd = heads_NAd[:, : self._num_rotated]
        swapped_NAd = rotated_NAd.roll(self._head_size // 2, -1)
        rotated_NAd.mul_(cos_N1d).addcmul_(swapped_NAd, sin_N1d)
        new_2GNd.flatten(0, 1).copy_(heads_NAd[:, self._num_heads :].transpose(0, 1))
        return heads_NAd[:, : self._num_heads]


def _terms(terms: LowRank) -> nn.Module:
    return nn.Sequential(PackedMatrix(terms.a), PackedMatrix(terms.b))
