"""Attention of a layer on a processor: queries, keys and values by one product, and attention over stored keys.

Modules that TorchScript can compile as a whole (`scripted`).

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), M rows of a segment,
S key positions, D hidden, H query heads, G key-value heads, R query heads per key-value head, X rows of a key-value
head (R * M), A heads of all kinds, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from dgemma_kernels.packing.cpu import PackedMatrix
from torch import Tensor, nn

from dgemma_engine.backends.cpu.feed_forward import RmsNorm
from dgemma_engine.model.config import LayerKind, ModelConfig
from dgemma_engine.model.layers import Attention, Layer

# Pads the number of keys to a multiple of this: oneDNN caches two programs per number of queries and keys, 0.7 MB both
# (see `packing.cpu.filled`).
KEY_MULTIPLE = 64
# Fewest queries of a head for two products and a softmax, in bfloat16: they take 0.6 to 0.9 of the time of torch's
# fused attention (48 positions over 512 cached ones: 0.73 against 1.15 ms); in float32 they take longer.
_PRODUCT_ROWS = 16
# Most keys for them, so that there are few oneDNN programs and the scores of a piece stay small.
_PRODUCT_KEYS = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSegment:
    """Keys and masks of consecutive tokens of a pass, per layer kind.

    Attributes:
        num_tokens: tokens of the segment.
        num_rows: queries per head: those of the tokens, then rows of zeros (`packing.cpu.num_filled`).
        first_keys: position in the cache of the first key they attend to.
        masks: additive masks, [1, 1, 1 or R * num_rows, S]; S keys from the first one on, a multiple of
            `KEY_MULTIPLE`; the last of them may be unwritten.
    """

    num_tokens: int
    num_rows: int
    first_keys: dict[LayerKind, int]
    masks: dict[LayerKind, Tensor]


class GroupedAttention(nn.Module):
    """Attention of all query heads over the stored keys and values, segment by segment.

    Args:
        num_heads: H.
        num_kv_heads: G.
        head_dim: d.
        scale: factor of the scores.
    """

    def __init__(self, num_heads: int, num_kv_heads: int, head_dim: int, scale: float) -> None:
        super().__init__()
        self._num_heads, self._num_kv_heads, self._head_dim = num_heads, num_kv_heads, head_dim
        self._scale = scale
        self._product_rows, self._product_keys = _PRODUCT_ROWS, _PRODUCT_KEYS

    def forward(
        self,
        q_NHd: Tensor,
        seen: list[Tensor],
        num_all_rows: int,
        num_tokens: list[int],
        num_rows: list[int],
        first_keys: list[int],
        masks: list[Tensor],
    ) -> Tensor:
        """Returns the heads' outputs side by side, [P, H * d]; 0 in the padding.

        Args:
            q_NHd: queries, float32.
            seen: by segment: keys and values so far, and `KEY_MULTIPLE` positions after them, [2, G, S, d].
            num_all_rows: P.
            num_tokens: by segment, see `AttentionSegment`.
            num_rows: likewise.
            first_keys: likewise.
            masks: likewise.
        """
        groups, num_heads, head_dim, dtype = self._num_kv_heads, self._num_heads, self._head_dim, seen[0].dtype
        attended_PGRd = torch.zeros([num_all_rows, groups, num_heads // groups, head_dim], dtype=dtype)
        first = 0
        for part, mask in enumerate(masks):
            num, start = num_tokens[part], first_keys[part]
            q_HMd = torch.zeros([num_heads, num_rows[part], head_dim], dtype=dtype)
            q_HMd[:, :num].copy_(q_NHd[first : first + num].transpose(0, 1) * self._scale)
            q_GXd = q_HMd.view(groups, -1, head_dim)
            seen_2GSd = seen[part][:, :, start : start + mask.size(-1)]
            if dtype == torch.bfloat16 and num_rows[part] >= self._product_rows and mask.size(-1) <= self._product_keys:
                out_GXd = torch.empty_like(q_GXd)
                for group, q_Xd in enumerate(q_GXd):
                    scores_XS = torch.mm(q_Xd, seen_2GSd[0, group].t()).add_(mask[0, 0])
                    torch.mm(scores_XS.softmax(-1), seen_2GSd[1, group], out=out_GXd[group])
            else:
                out_GXd = F.scaled_dot_product_attention(
                    q_GXd.unsqueeze(0), seen_2GSd[:1], seen_2GSd[1:], attn_mask=mask, scale=1.0
                )
            out_GRMd = out_GXd.view(groups, num_heads // groups, num_rows[part], head_dim)
            attended_PGRd[first : first + num].copy_(out_GRMd[:, :, :num].permute(2, 0, 1, 3))
            first += num
        return attended_PGRd.flatten(1)


class Heads(nn.Module):
    """Queries, keys and values: normalised per head, rotated, keys and values stored."""

    def __init__(self, layer: Layer, config: ModelConfig) -> None:
        super().__init__()
        attention = layer.self_attn
        self._qkv = _qkv(layer, config)
        self._num_heads, self._head_dim = attention.num_heads, attention.head_dim
        self._num_rotated = attention.num_heads + attention.num_kv_heads
        self._norm = RmsNorm(_head_scales(attention), attention.head_dim, config.rms_norm_eps)

    def forward(
        self,
        x_PD: Tensor,
        new: list[Tensor],
        cos_N1d: Tensor,
        sin_N1d: Tensor,
        num_causal: int,
        factors: list[Tensor],
    ) -> Tensor:
        """Writes keys and values to `new`, piece by piece; returns the queries, [N, H, d], float32.

        The family has no adapters: `factors` is empty.
        """
        num_tokens = cos_N1d.size(0)
        heads_NAd = self._qkv(x_PD)[:num_tokens].float().view(num_tokens, -1, self._head_dim)
        heads_NAd = self._norm(heads_NAd)
        rotated_NAd = heads_NAd[:, : self._num_rotated]
        swapped_NAd = rotated_NAd.roll(self._head_dim // 2, -1)
        rotated_NAd.mul_(cos_N1d).addcmul_(swapped_NAd, sin_N1d)
        write_kv(heads_NAd[:, self._num_heads :], new)
        return heads_NAd[:, : self._num_heads]


def write_kv(kv_NXd: Tensor, new: list[Tensor]) -> None:
    """Writes the keys and values of a pass, all keys first, into pieces [2, G, M, d] that hold its N tokens."""
    first = 0
    for piece_2GMd in new:
        num = piece_2GMd.size(2)
        piece_2GMd.flatten(0, 1).copy_(kv_NXd[first : first + num].transpose(0, 1))
        first += num


class _PlainQKV(nn.Module):
    """Queries, keys and values by one matrix.

    All of them are normalised per head, which cancels any factor per token. So only the scale of the norm before
    them remains, and it is folded into the matrix.
    """

    def __init__(self, weight_OD: Tensor, norm_D: Tensor) -> None:
        super().__init__()
        self._dtype = weight_OD.dtype
        self._matrix = PackedMatrix((weight_OD.float() * norm_D.detach().float()).to(weight_OD.dtype))

    def forward(self, x_ND: Tensor) -> Tensor:
        return self._matrix(x_ND.to(self._dtype))


class _ForeignQKV(nn.Module):
    """Queries, keys and values by a replaced module, called as it is."""

    def __init__(self, module: nn.Module, norm: RmsNorm, dtype: torch.dtype, num_copied: int) -> None:
        super().__init__()
        self._module, self._norm, self._dtype, self._num_copied = module, norm, dtype, num_copied

    def forward(self, x_ND: Tensor) -> Tensor:
        heads = self._module(self._norm(x_ND).to(self._dtype))
        return torch.cat((heads, heads[:, -self._num_copied :]), dim=-1) if self._num_copied else heads


def _qkv(layer: Layer, config: ModelConfig) -> nn.Module:
    """Returns the module that makes queries, keys and values of float32 hidden states; values may be the raw keys."""
    attention, norm_D = layer.self_attn, layer.input_layernorm.weight
    module = attention.qkv_proj
    is_sliding = attention.kind is LayerKind.SLIDING
    num_copied = 0 if is_sliding else attention.num_kv_heads * attention.head_dim
    if type(module) is nn.Linear:
        weight_OD = module.weight.detach()
        return _PlainQKV(torch.cat((weight_OD, weight_OD[-num_copied:])) if num_copied else weight_OD, norm_D)
    return _ForeignQKV(module, RmsNorm(norm_D, config.hidden_size, config.rms_norm_eps), norm_D.dtype, num_copied)


def _head_scales(attention: Attention) -> Tensor:
    """Returns the scale of every query, key and value head, [H + 2 * G, d]; values have none."""
    groups = attention.num_kv_heads
    q_d, k_d = attention.q_norm.weight.detach().float(), attention.k_norm.weight.detach().float()
    return torch.cat((q_d.expand(attention.num_heads, -1), k_d.expand(groups, -1), torch.ones(groups, len(q_d))))
