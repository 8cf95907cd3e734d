"""The layers of a small model for a processor: what `model/layers.py` computes, in as few operations as it takes.

A small model on a processor spends its time between operations, not in them. So hidden states stay float32 from layer
to layer (no conversions to and fro, and a norm is two operations and a division), matrices are packed once, those that
read the same input are one product, norm scales are folded into what reads them, and keys and values are written where
they are kept; and all layers are one call of compiled code. For one row and a `PromptCache`; without gradients. Weights
that change afterwards are not seen (docs/decisions/0013).

Shape legend: N tokens of a pass, P its rows (`packing.cpu.filled` behind the tokens), M those of a part, S key
positions, D hidden, H query heads, G key-value heads, R query heads per key-value head, d head size, I intermediate,
E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from dgemma_kernels.packing.cpu import PackedMatrix
from torch import Tensor, nn

from dgemma_engine.backends.cpu.feed_forward import LeanFeed, mlp
from dgemma_engine.backends.cpu.norm import LeanNorm
from dgemma_engine.backends.cpu.torchscript import scripted, unspecialised
from dgemma_engine.model.config import LayerKind, ModelConfig
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.layers import Attention, Layer, SelfConditioning
from dgemma_engine.model.rotary import inverse_frequencies

# Keys are looked at in whole numbers of this: attention keeps a program for each number of queries and keys, tens of
# kilobytes each, as `packing.cpu.filled` says of products.
KEYS = 64


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
        num_rows: queries per head, those tokens and rows of 0 behind them (`packing.cpu.num_filled`).
        first_keys: position in the cache of the first key they look at.
        masks: additive masks, [1, 1, 1 or R * num_rows, S]; S keys from the first one on are looked at, a whole number
            of `KEYS`, the last of them perhaps not written.
    """

    num_tokens: int
    num_rows: int
    first_keys: dict[LayerKind, int]
    masks: dict[LayerKind, Tensor]


class LeanStack:
    """All layers, one after the other, in one call of compiled code where torch has it (`scripted`).

    Args:
        layers: whose weights it takes.
        config: dimensions.

    Attributes:
        refusal: why the layers are not compiled; empty if they are.
    """

    def __init__(self, layers: Sequence[Layer], config: ModelConfig) -> None:
        lean = [LeanLayer(layer, config) for layer in layers]
        self._kinds = config.layer_kinds
        stack, last_heads = scripted(_Layers(lean, self._kinds)), scripted(lean[-1].heads)
        self._all, self._last_heads = stack.call, last_heads.call
        self.refusal = stack.refusal or last_heads.refusal

    def run(
        self, x_PD: Tensor, turns: dict[LayerKind, Turns], cache: PromptCache, sights: Sequence[Sight], num_causal: int
    ) -> Tensor:
        """Runs tokens whose keys and values go behind what the cache holds. Returns [P, D], float32.

        Args:
            x_PD: hidden states, float32; rows behind the tokens are seen by nobody.
            turns: of the tokens' positions.
            cache: keys and values are written into its room; nothing is counted as kept.
            sights: consecutive parts that make up the pass.
            num_causal: tokens in causal mode, which come first; the two modes have scalars of their own.
        """
        return self._run(x_PD, turns, cache, sights, num_causal, len(self._kinds))

    def remember(
        self, x_PD: Tensor, turns: dict[LayerKind, Turns], cache: PromptCache, sights: Sequence[Sight]
    ) -> None:
        """Writes the keys and values of tokens in causal mode, and computes nothing else of the last layer."""
        last_idx = len(self._kinds) - 1
        turn = turns[self._kinds[last_idx]]
        num_tokens = turn.cos.shape[0]
        x_PD = self._run(x_PD, turns, cache, sights, num_tokens, last_idx)
        with unspecialised():
            self._last_heads(x_PD, cache.room(last_idx, num_tokens, num_behind=KEYS)[0], turn.cos, turn.sin)

    def _run(
        self,
        x_PD: Tensor,
        turns: dict[LayerKind, Turns],
        cache: PromptCache,
        sights: Sequence[Sight],
        num_causal: int,
        num_layers: int,
    ) -> Tensor:
        num_tokens = sum(sight.num_tokens for sight in sights)
        rooms = [cache.room(i, num_tokens, num_behind=KEYS) for i in range(num_layers)]
        with unspecialised():
            return self._all(
                x_PD,
                [new for new, _so_far in rooms],
                [so_far for _new, so_far in rooms],
                [turns[kind].cos for kind in LayerKind],
                [turns[kind].sin for kind in LayerKind],
                [sight.num_tokens for sight in sights],
                [sight.num_rows for sight in sights],
                [[sight.first_keys[kind] for sight in sights] for kind in LayerKind],
                [[sight.masks[kind] for sight in sights] for kind in LayerKind],
                num_causal,
            )


class _Layers(nn.Module):
    """As many of the layers as there is room given for."""

    def __init__(self, layers: Sequence[LeanLayer], kinds: Sequence[LayerKind]) -> None:
        super().__init__()
        # Of `LeanLayer`s, which a list of modules does not say.
        self._layers: Any = nn.ModuleList(layers)
        self._kinds = [list(LayerKind).index(kind) for kind in kinds]

    def forward(
        self,
        x_PD: Tensor,
        new: list[Tensor],
        so_far: list[Tensor],
        cos: list[Tensor],
        sin: list[Tensor],
        num_tokens: list[int],
        num_rows: list[int],
        first_keys: list[list[int]],
        masks: list[list[Tensor]],
        num_causal: int,
    ) -> Tensor:
        for index, layer in enumerate(self._layers):
            if index < len(new):
                kind = self._kinds[index]
                q_NHd = layer.heads(x_PD, new[index], cos[kind], sin[kind])
                attended_PO = layer.look(
                    q_NHd, so_far[index], x_PD.size(0), num_tokens, num_rows, first_keys[kind], masks[kind]
                )
                x_PD = layer.scaled(layer.feed(x_PD, attended_PO), num_causal)
        return x_PD


class LeanLayer(nn.Module):
    """One layer.

    Args:
        layer: whose weights it takes; a module that is not what `model/layers.py` puts there is called as it is.
        config: dimensions.
    """

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        attention = layer.self_attn
        self._num_heads, self._num_kv_heads = attention.num_heads, attention.num_kv_heads
        self._head_dim = attention.head_dim
        self._encode_scalar, self._decode_scalar = layer.encoder_layer_scalar.item(), layer.layer_scalar.item()
        self.heads, self.feed = _Heads(layer, config), LeanFeed(layer, config)

    def look(
        self,
        q_NHd: Tensor,
        kv_2GSd: Tensor,
        num_all_rows: int,
        num_tokens: list[int],
        num_rows: list[int],
        first_keys: list[int],
        masks: list[Tensor],
    ) -> Tensor:
        """Returns the heads' outputs side by side, [P, H * d]; 0 in rows behind the tokens.

        Args:
            q_NHd: queries, float32.
            kv_2GSd: keys and values so far, with `KEYS` positions behind them.
            num_all_rows: P.
            num_tokens: by part, see `Sight`.
            num_rows: likewise.
            first_keys: likewise.
            masks: likewise.
        """
        groups, num_heads, head_dim, dtype = self._num_kv_heads, self._num_heads, self._head_dim, kv_2GSd.dtype
        attended_PGRd = torch.zeros([num_all_rows, groups, num_heads // groups, head_dim], dtype=dtype)
        first = 0
        for part, mask in enumerate(masks):
            num, start = num_tokens[part], first_keys[part]
            q_HMd = torch.zeros([num_heads, num_rows[part], head_dim], dtype=dtype)
            q_HMd[:, :num].copy_(q_NHd[first : first + num].transpose(0, 1))
            seen_2GSd = kv_2GSd[:, :, start : start + mask.size(-1)]
            out = F.scaled_dot_product_attention(
                q_HMd.view(1, groups, -1, head_dim), seen_2GSd[:1], seen_2GSd[1:], attn_mask=mask, scale=1.0
            )
            out_GRMd = out.view(groups, num_heads // groups, num_rows[part], head_dim)
            attended_PGRd[first : first + num].copy_(out_GRMd[:, :, :num].permute(2, 0, 1, 3))
            first += num
        return attended_PGRd.flatten(1)

    def scaled(self, x_PD: Tensor, num_causal: int) -> Tensor:
        """Multiplies, in place, by the scalars of the two modes; tokens in causal mode come first."""
        encode, decode = self._encode_scalar, self._decode_scalar
        if 0 < num_causal and num_causal < x_PD.size(0) and encode != decode:  # noqa: SIM300, for TorchScript
            x_PD[:num_causal].mul_(encode)
            x_PD[num_causal:].mul_(decode)
            return x_PD
        scalar = encode if num_causal else decode
        return x_PD if scalar == 1.0 else x_PD.mul_(scalar)


class LeanSelfConditioning(nn.Module):
    """Adds what the last step believed to the canvas embeddings.

    Args:
        module: whose weights it takes.
        config: dimensions.
    """

    def __init__(self, module: SelfConditioning, config: ModelConfig) -> None:
        super().__init__()
        self._dtype = module.pre_norm.weight.dtype
        self._pre_norm = LeanNorm(module.pre_norm.weight, config.hidden_size, config.rms_norm_eps)
        self._mlp = mlp(module.mlp)
        self._norm = LeanNorm(torch.ones(config.hidden_size), config.hidden_size, config.rms_norm_eps)

    def forward(self, x_ND: Tensor, soft_ND: Tensor | None) -> Tensor:
        """Returns [N, D], float32; `soft_ND` None is the first step."""
        if soft_ND is not None:
            x_ND = x_ND + self._mlp(self._pre_norm(soft_ND.float()).to(self._dtype))
        return self._norm(x_ND)


class _Heads(nn.Module):
    """Queries, keys and values: normalised per head, turned, and put where they belong."""

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        attention = layer.self_attn
        self._qkv = _qkv(layer, config)
        self._num_heads, self._head_dim = attention.num_heads, attention.head_dim
        self._num_turned = attention.num_heads + attention.num_kv_heads
        self._norm = LeanNorm(_head_scales(attention), attention.head_dim, config.rms_norm_eps)

    def forward(self, x_PD: Tensor, new_2GNd: Tensor, cos_N1d: Tensor, sin_N1d: Tensor) -> Tensor:
        """Writes keys and values to `new`; returns the queries, [N, H, d], float32."""
        num_tokens = cos_N1d.size(0)
        heads_NAd = self._qkv(x_PD)[:num_tokens].float().view(num_tokens, -1, self._head_dim)
        heads_NAd = self._norm(heads_NAd)
        turned_NAd = heads_NAd[:, : self._num_turned]
        swapped_NAd = turned_NAd.roll(self._head_dim // 2, -1)
        turned_NAd.mul_(cos_N1d).addcmul_(swapped_NAd, sin_N1d)
        new_2GNd.flatten(0, 1).copy_(heads_NAd[:, self._num_heads :].transpose(0, 1))
        return heads_NAd[:, : self._num_heads]


class _PlainQKV(nn.Module):
    """Queries, keys and values by one matrix.

    All of them are normalised per head, which undoes any factor per token. So of the norm before them only its scale
    is left, and that goes into the matrix.
    """

    def __init__(self, weight_OD: Tensor, norm_D: Tensor) -> None:
        super().__init__()
        self._dtype = weight_OD.dtype
        self._matrix = PackedMatrix((weight_OD.float() * norm_D.detach().float()).to(weight_OD.dtype))

    def forward(self, x_ND: Tensor) -> Tensor:
        return self._matrix(x_ND.to(self._dtype))


class _ForeignQKV(nn.Module):
    """Queries, keys and values by a module that says itself how."""

    def __init__(self, module: nn.Module, norm: LeanNorm, dtype: torch.dtype, num_copied: int) -> None:
        super().__init__()
        self._module, self._norm, self._dtype, self._num_copied = module, norm, dtype, num_copied

    def forward(self, x_ND: Tensor) -> Tensor:
        heads = self._module(self._norm(x_ND).to(self._dtype))
        return torch.cat((heads, heads[:, -self._num_copied :]), dim=-1) if self._num_copied else heads


def _qkv(layer: Layer, config: ModelConfig) -> nn.Module:
    """Returns what makes queries, keys and values of float32 hidden states, also where the values are the raw keys."""
    attention, norm_D = layer.self_attn, layer.input_layernorm.weight
    module = attention.qkv_proj
    is_sliding = attention.kind is LayerKind.SLIDING
    num_copied = 0 if is_sliding else attention.num_kv_heads * attention.head_dim
    if type(module) is nn.Linear:
        weight_OD = module.weight.detach()
        return _PlainQKV(torch.cat((weight_OD, weight_OD[-num_copied:])) if num_copied else weight_OD, norm_D)
    return _ForeignQKV(module, LeanNorm(norm_D, config.hidden_size, config.rms_norm_eps), norm_D.dtype, num_copied)


def _head_scales(attention: Attention) -> Tensor:
    """Returns the scale of every query, key and value head, [H + 2 * G, d]; values have none."""
    groups = attention.num_kv_heads
    q_d, k_d = attention.q_norm.weight.detach().float(), attention.k_norm.weight.detach().float()
    return torch.cat((q_d.expand(attention.num_heads, -1), k_d.expand(groups, -1), torch.ones(groups, len(q_d))))


def _turns(frequencies: Tensor, size: int) -> Turns:
    angles = torch.arange(size, dtype=torch.float32)[:, None] * frequencies
    sin = angles.sin()
    return Turns(cos=angles.cos().repeat(1, 2)[:, None], sin=torch.cat((-sin, sin), dim=1)[:, None])
