"""All layers of a small model on a processor as one call of compiled code, for any family.

A family supplies the layers: modules with `heads` (queries, keys and values), `attend` and `feed`. For one row and a
`PromptCache`, or several rows with one each, whose adapter takes part as arguments: nothing is compiled or copied to
change it.

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import KEY_MULTIPLE, AttentionSegment
from dgemma_engine.backends.cpu.rotary import RotaryCosSin
from dgemma_engine.backends.cpu.torchscript import scripted, unspecialised
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.kv_cache import PromptCache


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PackedAdapter:
    """A `ModelAdapter` of a packed model.

    Attributes:
        layers: factors of each layer, float32, in the order that the family's layers read them.
    """

    layers: list[list[Tensor]]

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(factor.nbytes for factors in self.layers for factor in factors)


class LayerStack:
    """All layers, one after the other, in one call of compiled code where torch has it (`scripted`).

    Args:
        layers: of one family, `PackedLayer`s or modules with the same methods.
        kinds: of each layer.

    Attributes:
        refusal: why the layers are not compiled; empty if they are.
    """

    def __init__(self, layers: Sequence[nn.Module], kinds: Sequence[LayerKind]) -> None:
        self._kinds = kinds
        self._no_factors: list[list[Tensor]] = [[] for _ in kinds]
        self._present = [kind for kind in LayerKind if kind in kinds]
        last: Any = layers[-1]
        places = [self._present.index(kind) for kind in kinds]
        stack, last_heads = scripted(_Layers(layers, places)), scripted(last.heads)
        self._all, self._last_heads = stack.call, last_heads.call
        self.refusal = stack.refusal or last_heads.refusal

    def run(
        self,
        x_PD: Tensor,
        rotary: dict[LayerKind, RotaryCosSin],
        cache: PromptCache,
        segments: Sequence[AttentionSegment],
        num_causal: int,
    ) -> Tensor:
        """Runs tokens that follow the cached ones. Returns [P, D], float32.

        Args:
            x_PD: hidden states, float32; no token attends to the padding.
            rotary: of the tokens' positions.
            cache: keys and values are written into its room; nothing is counted as kept.
            segments: consecutive ones that make up the pass.
            num_causal: tokens in causal mode, which come first; the two modes have scalars of their own.
        """
        num_tokens = sum(segment.num_tokens for segment in segments)
        room = self._room(cache, num_tokens)
        stores = [_LayerStores(new=[new], seen=[seen] * len(segments)) for new, seen in room]
        return self._run(x_PD, rotary, stores, segments, num_causal, self._factors(cache))

    def run_together(
        self,
        x_PD: Tensor,
        rotary: dict[LayerKind, RotaryCosSin],
        caches: Sequence[PromptCache],
        segments: Sequence[AttentionSegment],
    ) -> Tensor:
        """Runs canvases, each of which follows what a cache of its own holds. Returns [P, D], float32.

        Args:
            x_PD: hidden states of all canvases one after the other, float32.
            rotary: of their positions.
            caches: of the canvases; of one adapter.
            segments: one for each.
        """
        rooms = [self._room(cache, each.num_tokens) for cache, each in zip(caches, segments, strict=True)]
        stores = [
            _LayerStores(new=[new for new, _seen in layer], seen=[seen for _new, seen in layer])
            for layer in zip(*rooms, strict=True)
        ]
        return self._run(x_PD, rotary, stores, segments, 0, self._factors(caches[0]))

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
        room = self._room(cache, num_tokens)[:last_idx]
        stores = [_LayerStores(new=[new], seen=[seen] * len(segments)) for new, seen in room]
        x_PD = self._run(x_PD, rotary, stores, segments, num_tokens, self._factors(cache))
        with unspecialised():
            self._last_heads(
                x_PD,
                [cache.room(last_idx, num_tokens, num_behind=KEY_MULTIPLE)[0]],
                cos_sin.cos,
                cos_sin.sin,
                num_tokens,
                self._factors(cache)[last_idx],
            )

    def _run(
        self,
        x_PD: Tensor,
        rotary: dict[LayerKind, RotaryCosSin],
        stores: Sequence[_LayerStores],
        segments: Sequence[AttentionSegment],
        num_causal: int,
        factors: list[list[Tensor]],
    ) -> Tensor:
        """Runs as many layers as there are stores."""
        with unspecialised():
            return self._all(
                x_PD,
                [each.new for each in stores],
                [each.seen for each in stores],
                [rotary[kind].cos for kind in self._present],
                [rotary[kind].sin for kind in self._present],
                [segment.num_tokens for segment in segments],
                [segment.num_rows for segment in segments],
                [[segment.first_keys[kind] for segment in segments] for kind in self._present],
                [[segment.masks[kind] for segment in segments] for kind in self._present],
                num_causal,
                factors,
            )

    def _room(self, cache: PromptCache, num_tokens: int) -> list[tuple[Tensor, Tensor]]:
        """Returns, of each layer, where new keys and values go and all of them so far; see `PromptCache.room`."""
        return [cache.room(i, num_tokens, num_behind=KEY_MULTIPLE) for i in range(len(self._kinds))]

    def _factors(self, cache: PromptCache) -> list[list[Tensor]]:
        if cache.adapter is None:
            return self._no_factors
        assert isinstance(cache.adapter, PackedAdapter), "an adapter is made by the model that reads it"
        return cache.adapter.layers


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerStores:
    """The keys and values of a layer in a pass.

    Attributes:
        new: those of its tokens, in turn; one piece for each cache.
        seen: what each segment attends to.
    """

    new: list[Tensor]
    seen: list[Tensor]


class _Layers(nn.Module):
    """The first layers, one for each store that is passed."""

    def __init__(self, layers: Sequence[nn.Module], kinds: Sequence[int]) -> None:
        super().__init__()
        # Typed as layers, which a list of modules is not.
        self._layers: Any = nn.ModuleList(layers)
        self._kinds = list(kinds)

    def forward(
        self,
        x_PD: Tensor,
        new: list[list[Tensor]],
        seen: list[list[Tensor]],
        cos: list[Tensor],
        sin: list[Tensor],
        num_tokens: list[int],
        num_rows: list[int],
        first_keys: list[list[int]],
        masks: list[list[Tensor]],
        num_causal: int,
        factors: list[list[Tensor]],
    ) -> Tensor:
        for index, layer in enumerate(self._layers):
            if index < len(new):
                kind = self._kinds[index]
                q_NHd = layer.heads(x_PD, new[index], cos[kind], sin[kind], num_causal, factors[index])
                attended_PO = layer.attend(
                    q_NHd, seen[index], x_PD.size(0), num_tokens, num_rows, first_keys[kind], masks[kind]
                )
                x_PD = layer.feed(x_PD, attended_PO, num_causal, factors[index])
        return x_PD
