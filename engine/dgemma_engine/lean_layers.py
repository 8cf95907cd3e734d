"""The layers of a small model for a processor: what `layers.py` computes, in as few operations as it takes.

A small model on a processor spends its time between operations, not in them. So hidden states stay float32 from layer
to layer (no conversions to and fro, and a norm is two operations and a division), matrices are packed once, those that
read the same input are one product, norm scales are folded into what reads them, and keys and values are written where
they are kept. For one row and a `PromptCache`; without gradients. Weights that change afterwards are not seen
(docs/decisions/0013).

Shape legend: N tokens of a pass, P its rows (`packed.filled` behind the tokens), M those of a part, S key positions,
D hidden, H query heads, G key-value heads, R query heads per key-value head, d head size, I intermediate, E experts,
K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from dgemma_kernels.packed import PackedGate, PackedMatrix
from torch import Tensor, nn

from dgemma_engine.cache import PromptCache
from dgemma_engine.config import LayerKind, ModelConfig
from dgemma_engine.layers import Attention, Experts, GatedMLP, Layer, SelfConditioning
from dgemma_engine.rotary import inverse_frequencies

# Keys are looked at in whole numbers of this: attention keeps a program for each number of queries and keys, tens of
# kilobytes each, as `packed.filled` says of products.
KEYS = 64
# Up to this many experts per chosen one, bfloat16 runs all of them on all tokens (`kernels.reference.experts`).
_DENSE_EXPERTS_PER_CHOSEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Rotary factors of some positions, [N, 1, d] float32 each: `x * cos + roll(x, d / 2) * sin`."""

    cos: Tensor
    sin: Tensor


class TurnsTable:
    """Rotary factors of both layer kinds, computed once for every position that was asked for so far.

    Args:
        config: frequencies and head sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._frequencies = {kind: inverse_frequencies(config.rope[kind], config.head_dim[kind]) for kind in LayerKind}
        self._known = dict[LayerKind, Turns]()
        self._size = 0

    def at(self, positions_N: Tensor, most: int) -> dict[LayerKind, Turns]:
        """Returns the factors of positions that are all below `most`."""
        if most > self._size:
            self._size = max(512, 2 * most)
            self._known = {kind: _turns(frequencies, self._size) for kind, frequencies in self._frequencies.items()}
        return {
            kind: Turns(cos=known.cos.index_select(0, positions_N), sin=known.sin.index_select(0, positions_N))
            for kind, known in self._known.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the tokens of a part of a pass look at, per layer kind.

    Attributes:
        num_tokens: consecutive tokens it speaks of.
        num_rows: queries per head, those tokens and rows of 0 behind them (`packed.num_filled`).
        first_keys: position in the cache of the first key they look at.
        masks: additive masks, [1, 1, 1 or R * num_rows, S]; S keys from the first one on are looked at, a whole number
            of `KEYS`, the last of them perhaps not written.
    """

    num_tokens: int
    num_rows: int
    first_keys: dict[LayerKind, int]
    masks: dict[LayerKind, Tensor]


class LeanNorm:
    """RMS norm of float32 hidden states with its scale.

    Args:
        scale_D: its scale; may be one for each of several heads.
        size: width.
        eps: added to the mean square.
    """

    def __init__(self, scale_D: Tensor, size: int, eps: float) -> None:
        self._scale_D = scale_D.detach().float() * size**0.5
        self._least = torch.full((1,), (size * eps) ** 0.5)

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Returns the norm of `x`, float32."""
        return (x_ND * self._scale_D).div_(self._length(x_ND))

    def added_to(self, base_ND: Tensor, x_ND: Tensor) -> Tensor:
        """Returns `base` plus the norm of `x`."""
        return torch.addcdiv(base_ND, x_ND * self._scale_D, self._length(x_ND))

    def _length(self, x_ND: Tensor) -> Tensor:
        # One operation where a mean of squares takes several; `eps` joins as a side of its own.
        return torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True).hypot_(self._least)


class LeanLayer:
    """One layer.

    Args:
        layer: whose weights it takes; a module that is not what `layers.py` puts there is called as it is.
        config: dimensions.
        layer_idx: its place in the cache.
    """

    def __init__(self, layer: Layer, config: ModelConfig, layer_idx: int) -> None:
        size, eps = config.hidden_size, config.rms_norm_eps
        attention = layer.self_attn
        self.kind = attention.kind
        self._layer_idx = layer_idx
        self._dtype = attention.k_norm.weight.dtype
        self._num_heads, self._num_kv_heads = attention.num_heads, attention.num_kv_heads
        self._head_dim = attention.head_dim
        self._qkv = _qkv(layer, config)
        self._head_norm = LeanNorm(_head_scales(attention), self._head_dim, eps)
        self._out = product(attention.o_proj)
        self._after_attention = LeanNorm(layer.post_attention_layernorm.weight, size, eps)
        self._middle_norm = LeanNorm(torch.ones(size), size, eps)
        self._feed = _Feed(layer, config)
        self._encode_scalar, self._decode_scalar = layer.encoder_layer_scalar.item(), layer.layer_scalar.item()
        self._after_both = LeanNorm(layer.post_feedforward_layernorm.weight, size, eps)

    def run(self, x_PD: Tensor, turns: Turns, cache: PromptCache, sights: Sequence[Sight], num_causal: int) -> Tensor:
        """Runs tokens whose keys and values go behind what the cache holds. Returns [P, D], float32.

        Args:
            x_PD: hidden states, float32; rows behind the tokens are seen by nobody.
            turns: of the tokens' positions.
            cache: keys and values are written into its room; nothing is counted as kept.
            sights: consecutive parts that make up the pass.
            num_causal: tokens in causal mode, which come first; the two modes have scalars of their own.
        """
        q_NHd, kv = self._projected(x_PD, turns, cache)
        attended_PD = self._look(q_NHd, kv, sights, len(x_PD))
        residual_PD = self._after_attention.added_to(x_PD, self._out(attended_PD).float())
        fed_PD = self._feed(self._middle_norm(residual_PD))
        out_PD = self._after_both.added_to(residual_PD, fed_PD)
        return self._scaled(out_PD, num_causal)

    def remember(self, x_PD: Tensor, turns: Turns, cache: PromptCache) -> None:
        """Writes keys and values and computes nothing else."""
        self._projected(x_PD, turns, cache)

    def _scaled(self, x_ND: Tensor, num_causal: int) -> Tensor:
        encode, decode = self._encode_scalar, self._decode_scalar
        if 0 < num_causal < x_ND.shape[0] and encode != decode:
            x_ND[:num_causal] *= encode
            x_ND[num_causal:] *= decode
            return x_ND
        scalar = encode if num_causal else decode
        return x_ND if scalar == 1 else x_ND.mul_(scalar)

    def _projected(self, x_PD: Tensor, turns: Turns, cache: PromptCache) -> tuple[Tensor, Tensor]:
        """Returns queries, [N, H, d], and the layer's keys and values so far with `KEYS` positions behind them."""
        num_tokens, num_heads = turns.cos.shape[0], self._num_heads
        num_turned = num_heads + self._num_kv_heads
        heads_NHd = self._qkv(x_PD)[:num_tokens].float().view(num_tokens, -1, self._head_dim)
        heads_NHd = self._head_norm(heads_NHd)
        turned = heads_NHd[:, :num_turned]
        swapped = turned.roll(self._head_dim // 2, -1)
        turned.mul_(turns.cos).addcmul_(swapped, turns.sin)
        new, kv = cache.room(self._layer_idx, num_tokens, num_behind=KEYS)
        new.flatten(0, 1).copy_(heads_NHd[:, num_heads:].transpose(0, 1))
        return heads_NHd[:, :num_heads], kv

    def _look(self, q_NHd: Tensor, kv: Tensor, sights: Sequence[Sight], num_rows: int) -> Tensor:
        """Returns the heads' outputs side by side, [P, H * d]; 0 in rows behind the tokens."""
        groups, num_heads = self._num_kv_heads, self._num_heads
        attended_PGRd = torch.zeros(num_rows, groups, num_heads // groups, self._head_dim, dtype=self._dtype)
        first = 0
        for sight in sights:
            last, mask = first + sight.num_tokens, sight.masks[self.kind]
            q_HMd = torch.zeros(num_heads, sight.num_rows, self._head_dim, dtype=self._dtype)
            q_HMd[:, : sight.num_tokens] = q_NHd[first:last].transpose(0, 1)
            start = sight.first_keys[self.kind]
            k, v = kv[:, None, :, start : start + mask.shape[-1]]
            q = q_HMd.view(1, groups, -1, self._head_dim)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
            out_GRMd = out.view(groups, -1, sight.num_rows, self._head_dim)
            attended_PGRd[first:last] = out_GRMd[:, :, : sight.num_tokens].permute(2, 0, 1, 3)
            first = last
        return attended_PGRd.flatten(1)


class LeanSelfConditioning:
    """Adds what the last step believed to the canvas embeddings.

    Args:
        module: whose weights it takes.
        config: dimensions.
    """

    def __init__(self, module: SelfConditioning, config: ModelConfig) -> None:
        self._dtype = module.pre_norm.weight.dtype
        self._pre_norm = LeanNorm(module.pre_norm.weight, config.hidden_size, config.rms_norm_eps)
        self._mlp = _mlp(module.mlp)
        self._norm = LeanNorm(torch.ones(config.hidden_size), config.hidden_size, config.rms_norm_eps)

    def __call__(self, x_ND: Tensor, soft_ND: Tensor | None) -> Tensor:
        """Returns [N, D], float32; `soft_ND` None is the first step."""
        if soft_ND is not None:
            x_ND = x_ND + self._mlp(self._pre_norm(soft_ND.float()).to(self._dtype))
        return self._norm(x_ND)


class _Feed:
    """The dense MLP beside the experts, each with its norms."""

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        size, eps = config.hidden_size, config.rms_norm_eps
        router = layer.router
        router_ED = router.proj.weight.detach().float() * router.scale.detach().float() * size**-0.5
        # Laid out for `mm`: a fifth of the time that `F.linear` takes for so few columns.
        self._router_DE = router_ED.t().contiguous()
        self._per_expert_E = router.per_expert_scale.detach().float()
        self._num_chosen = config.top_k_experts
        self._experts = _Together(layer) if _runs_together(layer, config) else _Apart(layer)
        after_both = (layer.post_feedforward_layernorm_1.weight, layer.post_feedforward_layernorm_2.weight)
        self._after_2D = LeanNorm(torch.stack(after_both), size, eps)

    def __call__(self, normed_ND: Tensor) -> Tensor:
        """Returns [N, D] for a normalised residual, both float32."""
        scores_NK, indices_NK = torch.mm(normed_ND, self._router_DE).topk(self._num_chosen, dim=-1)
        # The softmax over the chosen scores is the softmax over all of them, renormalised.
        weights_NK = scores_NK.softmax(-1).mul_(self._per_expert_E[indices_NK])
        both_N2D = torch.empty(normed_ND.shape[0], 2, normed_ND.shape[1])
        both_N2D[:, 0], both_N2D[:, 1] = self._experts(normed_ND, weights_NK, indices_NK)
        both_N2D = self._after_2D(both_N2D)
        return both_N2D[:, 0].add_(both_N2D[:, 1])


class _Together:
    """All experts on all tokens, and the dense MLP in the same products: no gathering, and the fewest calls."""

    def __init__(self, layer: Layer) -> None:
        mlp, experts = layer.mlp, layer.experts
        dense_D = layer.pre_feedforward_layernorm.weight.detach().float()
        sparse_D = layer.pre_feedforward_layernorm_2.weight.detach().float()
        self._dtype = layer.pre_feedforward_layernorm.weight.dtype
        self._num_experts, size, _inner = experts.down_proj.shape
        dense_gate, dense_up = (mlp.gate_up_proj.weight.detach().float() * dense_D).chunk(2)
        sparse_gate, sparse_up = (experts.gate_up_proj.detach().float() * sparse_D).chunk(2, dim=1)
        gate = torch.cat((dense_gate, sparse_gate.flatten(0, 1)))
        up = torch.cat((dense_up, sparse_up.flatten(0, 1)))
        self._gate = PackedGate(gate.to(self._dtype), up.to(self._dtype))
        self._num_dense = mlp.down_proj.weight.shape[1]
        self._dense_down = PackedMatrix(mlp.down_proj.weight)
        self._sparse_down = PackedMatrix(experts.down_proj.transpose(0, 1).reshape(size, -1))

    def __call__(self, normed_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the MLP and what the experts make of a normalised residual, [N, D] each."""
        num_tokens = normed_ND.shape[0]
        inner_NI = self._gate(normed_ND.to(self._dtype))
        weights_NE = torch.zeros(num_tokens, self._num_experts).scatter_(1, indices_NK, weights_NK).to(self._dtype)
        chosen_NEI = inner_NI[:, self._num_dense :].unflatten(-1, (self._num_experts, -1)) * weights_NE[..., None]
        return self._dense_down(inner_NI[:, : self._num_dense]), self._sparse_down(chosen_NEI.flatten(1))


class _Apart:
    """The dense MLP, and the experts as their module runs them."""

    def __init__(self, layer: Layer) -> None:
        self._dtype = layer.pre_feedforward_layernorm.weight.dtype
        self._dense_scale_D = layer.pre_feedforward_layernorm.weight.detach().float()
        self._sparse_scale_D = layer.pre_feedforward_layernorm_2.weight.detach().float()
        self._mlp = _mlp(layer.mlp)
        self._experts = layer.experts

    def __call__(self, normed_ND: Tensor, weights_NK: Tensor, indices_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the MLP and what the experts make of a normalised residual, [N, D] each."""
        dense_ND = self._mlp((normed_ND * self._dense_scale_D).to(self._dtype))
        sparse_in_ND = (normed_ND * self._sparse_scale_D).to(self._dtype)
        return dense_ND, self._experts(sparse_in_ND, weights_NK, indices_NK)


def product(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns what multiplies as a linear layer does; a module of another kind says itself how."""
    return PackedMatrix(module.weight) if type(module) is nn.Linear else module


def _mlp(module: GatedMLP) -> Callable[[Tensor], Tensor]:
    if type(module.gate_up_proj) is not nn.Linear:
        return module
    inner, down = PackedGate(*module.gate_up_proj.weight.chunk(2)), product(module.down_proj)
    return lambda x_ND: down(inner(x_ND))


def _runs_together(layer: Layer, config: ModelConfig) -> bool:
    are_plain = type(layer.experts) is Experts and all(
        type(module) is nn.Linear for module in (layer.mlp.gate_up_proj, layer.mlp.down_proj)
    )
    is_cheap = layer.pre_feedforward_layernorm.weight.dtype is torch.bfloat16
    return are_plain and is_cheap and config.num_experts <= _DENSE_EXPERTS_PER_CHOSEN * config.top_k_experts


def _qkv(layer: Layer, config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """Returns what makes queries, keys and values of float32 hidden states, also where the values are the raw keys.

    All of them are normalised per head, which undoes any factor per token. So of the norm before them only its scale
    is left, and that goes into the matrix.
    """
    attention, norm_D = layer.self_attn, layer.input_layernorm.weight
    module, num_key_rows = attention.qkv_proj, attention.num_kv_heads * attention.head_dim
    has_values = attention.kind is LayerKind.SLIDING
    if type(module) is nn.Linear:
        weight_OD = module.weight.detach() if has_values else torch.cat((module.weight, module.weight[-num_key_rows:]))
        matrix = PackedMatrix((weight_OD.detach().float() * norm_D.detach().float()).to(weight_OD.dtype))
        return lambda x_ND: matrix(x_ND.to(weight_OD.dtype))
    norm = LeanNorm(norm_D, config.hidden_size, config.rms_norm_eps)

    def with_values(x_ND: Tensor) -> Tensor:
        heads = module(norm(x_ND).to(norm_D.dtype))
        return heads if has_values else torch.cat((heads, heads[:, -num_key_rows:]), dim=-1)

    return with_values


def _head_scales(attention: Attention) -> Tensor:
    """Returns the scale of every query, key and value head, [H + 2 * G, d]; values have none."""
    groups = attention.num_kv_heads
    q_d, k_d = attention.q_norm.weight.detach().float(), attention.k_norm.weight.detach().float()
    return torch.cat((q_d.expand(attention.num_heads, -1), k_d.expand(groups, -1), torch.ones(groups, len(q_d))))


def _turns(frequencies: Tensor, size: int) -> Turns:
    angles = torch.arange(size, dtype=torch.float32)[:, None] * frequencies
    sin = angles.sin()
    return Turns(cos=angles.cos().repeat(1, 2)[:, None], sin=torch.cat((-sin, sin), dim=1)[:, None])
