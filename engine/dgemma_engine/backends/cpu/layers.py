"""The layers of a small model for a processor: what `model/layers.py` computes, in as few operations as possible.

A small model on a processor spends its time between operations, not in them. So hidden states stay float32 from layer
to layer (no conversions to and fro, and a norm is two operations and a division), matrices are packed once, those that
read the same input are one product, norm scales are folded into what reads them, and keys and values are written where
they are kept; and all layers are one call of compiled code. For one row and a `PromptCache`; without gradients. Weights
that change afterwards are not read (docs/decisions/0013).

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), S key positions,
D hidden, H query heads, G key-value heads, R query heads per key-value head, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import KEY_MULTIPLE, AttentionSegment, Heads
from dgemma_engine.backends.cpu.feed_forward import FeedForward, RmsNorm, mlp
from dgemma_engine.backends.cpu.torchscript import scripted, unspecialised
from dgemma_engine.model.config import LayerKind, ModelConfig
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.layers import Layer, SelfConditioning
from dgemma_engine.model.rotary import inverse_frequencies


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryCosSin:
    """Rotary factors of some positions, [N, 1, d] float32 each: `x * cos + roll(x, d / 2) * sin`."""

    cos: Tensor
    sin: Tensor


class RotaryCache:
    """Rotary factors of both layer kinds, computed once for every position that was asked for so far.

    Args:
        config: frequencies and head sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._frequencies = {kind: inverse_frequencies(config.rope[kind], config.head_dim[kind]) for kind in LayerKind}
        self._known = dict[LayerKind, RotaryCosSin]()
        self._size = 0

    def at(self, positions_1N: Tensor | None, num_past: int, num_tokens: int) -> dict[LayerKind, RotaryCosSin]:
        """Returns the factors of positions; None are those of `num_tokens` tokens after `num_past`."""
        if positions_1N is None:
            positions_N, most = torch.arange(num_past, num_past + num_tokens), num_past + num_tokens
        else:
            positions_N, most = positions_1N[0], int(positions_1N.max()) + 1
        if most > self._size:
            self._size = max(512, 2 * most)
            self._known = {kind: _rotary(frequencies, self._size) for kind, frequencies in self._frequencies.items()}
        return {
            kind: RotaryCosSin(cos=known.cos.index_select(0, positions_N), sin=known.sin.index_select(0, positions_N))
            for kind, known in self._known.items()
        }


def _rotary(frequencies: Tensor, size: int) -> RotaryCosSin:
    angles = torch.arange(size, dtype=torch.float32)[:, None] * frequencies
    sin = angles.sin()
    return RotaryCosSin(cos=angles.cos().repeat(1, 2)[:, None], sin=torch.cat((-sin, sin), dim=1)[:, None])


class LayerStack:
    """All layers, one after the other, in one call of compiled code where torch has it (`scripted`).

    Args:
        layers: whose weights it takes.
        config: dimensions.

    Attributes:
        refusal: why the layers are not compiled; empty if they are.
    """

    def __init__(self, layers: Sequence[Layer], config: ModelConfig) -> None:
        packed = [PackedLayer(layer, config) for layer in layers]
        self._kinds = config.layer_kinds
        stack, last_heads = scripted(_Layers(packed, self._kinds)), scripted(packed[-1].heads)
        self._all, self._last_heads = stack.call, last_heads.call
        self.refusal = stack.refusal or last_heads.refusal

    def run(
        self,
        x_PD: Tensor,
        rotary: dict[LayerKind, RotaryCosSin],
        cache: PromptCache,
        segments: Sequence[AttentionSegment],
        num_causal: int,
        *,
        num_layers: int | None = None,
    ) -> Tensor:
        """Runs tokens that follow the cached ones. Returns [P, D], float32.

        Args:
            x_PD: hidden states, float32; no token attends to the padding.
            rotary: of the tokens' positions.
            cache: keys and values are written into its room; nothing is counted as kept.
            segments: consecutive ones that make up the pass.
            num_causal: tokens in causal mode, which come first; the two modes have scalars of their own.
            num_layers: only the first ones; None runs all.
        """
        num_tokens = sum(segment.num_tokens for segment in segments)
        indices = range(len(self._kinds) if num_layers is None else num_layers)
        rooms = [cache.room(i, num_tokens, num_behind=KEY_MULTIPLE) for i in indices]
        with unspecialised():
            return self._all(
                x_PD,
                [new for new, _so_far in rooms],
                [so_far for _new, so_far in rooms],
                [rotary[kind].cos for kind in LayerKind],
                [rotary[kind].sin for kind in LayerKind],
                [segment.num_tokens for segment in segments],
                [segment.num_rows for segment in segments],
                [[segment.first_keys[kind] for segment in segments] for kind in LayerKind],
                [[segment.masks[kind] for segment in segments] for kind in LayerKind],
                num_causal,
            )

    def store_kv(
        self,
        x_PD: Tensor,
        rotary: dict[LayerKind, RotaryCosSin],
        cache: PromptCache,
        segments: Sequence[AttentionSegment],
    ) -> None:
        """Writes the keys and values of tokens in causal mode, and computes nothing else of the last layer."""
        last_idx = len(self._kinds) - 1
        cos_sin = rotary[self._kinds[last_idx]]
        num_tokens = cos_sin.cos.shape[0]
        x_PD = self.run(x_PD, rotary, cache, segments, num_tokens, num_layers=last_idx)
        with unspecialised():
            self._last_heads(
                x_PD, cache.room(last_idx, num_tokens, num_behind=KEY_MULTIPLE)[0], cos_sin.cos, cos_sin.sin
            )


class _Layers(nn.Module):
    """As many of the layers as there is room given for."""

    def __init__(self, layers: Sequence[PackedLayer], kinds: Sequence[LayerKind]) -> None:
        super().__init__()
        # Of `PackedLayer`s, which a list of modules does not say.
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
                attended_PO = layer.attend(
                    q_NHd, so_far[index], x_PD.size(0), num_tokens, num_rows, first_keys[kind], masks[kind]
                )
                x_PD = layer.apply_scalar(layer.feed(x_PD, attended_PO), num_causal)
        return x_PD


class PackedLayer(nn.Module):
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
        self.heads, self.feed = Heads(layer, config), FeedForward(layer, config)

    def attend(
        self,
        q_NHd: Tensor,
        kv_2GSd: Tensor,
        num_all_rows: int,
        num_tokens: list[int],
        num_rows: list[int],
        first_keys: list[int],
        masks: list[Tensor],
    ) -> Tensor:
        """Returns the heads' outputs side by side, [P, H * d]; 0 in the padding.

        Args:
            q_NHd: queries, float32.
            kv_2GSd: keys and values so far, and `KEY_MULTIPLE` positions after them.
            num_all_rows: P.
            num_tokens: by segment, see `AttentionSegment`.
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

    def apply_scalar(self, x_PD: Tensor, num_causal: int) -> Tensor:
        """Multiplies, in place, by the scalars of the two modes; tokens in causal mode come first."""
        encode, decode = self._encode_scalar, self._decode_scalar
        if 0 < num_causal and num_causal < x_PD.size(0) and encode != decode:  # noqa: SIM300, for TorchScript
            x_PD[:num_causal].mul_(encode)
            x_PD[num_causal:].mul_(decode)
            return x_PD
        scalar = encode if num_causal else decode
        return x_PD if scalar == 1.0 else x_PD.mul_(scalar)


class PackedSelfConditioning(nn.Module):
    """Adds the self-conditioning signal to the canvas embeddings.

    Args:
        module: whose weights it takes.
        config: dimensions.
    """

    def __init__(self, module: SelfConditioning, config: ModelConfig) -> None:
        super().__init__()
        self._dtype = module.pre_norm.weight.dtype
        self._pre_norm = RmsNorm(module.pre_norm.weight, config.hidden_size, config.rms_norm_eps)
        self._mlp = mlp(module.mlp)
        self._norm = RmsNorm(torch.ones(config.hidden_size), config.hidden_size, config.rms_norm_eps)

    def forward(self, x_ND: Tensor, soft_ND: Tensor | None) -> Tensor:
        """Returns [N, D], float32; `soft_ND` None is the first step."""
        if soft_ND is not None:
            x_ND = x_ND + self._mlp(self._pre_norm(soft_ND.float()).to(self._dtype))
        return self._norm(x_ND)
