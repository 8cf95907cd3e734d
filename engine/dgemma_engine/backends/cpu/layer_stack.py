"""All layers of a small model on a processor as one call of compiled code, for any family.

A family supplies the layers: modules with `heads` (queries, keys and values), `attend` and `feed`. For one row and a
`PromptCache`, or several rows with one each. The factors of an adapter are arguments of the compiled code, so that a
change of adapter compiles and copies nothing.

A small model on a processor makes hundreds of small operations, and Python between them takes longer than some of them.
TorchScript calls them from compiled code (`scripted`). Torch has deprecated it, so a module that cannot be
compiled runs uncompiled, with the same results, only slower, and the reason is returned with it.

Shape legend: N tokens of a pass, P its rows (the tokens, then padding: `packing.cpu.filled`), D hidden.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgemma_engine.backends.cpu.attention import KEY_MULTIPLE, AttentionSegment
from dgemma_engine.backends.cpu.rotary import RotaryCosSin
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
        norm: after the last layer.

    Attributes:
        refusal: why the layers are not compiled; empty if they are.
    """

    def __init__(self, layers: Sequence[nn.Module], kinds: Sequence[LayerKind], norm: nn.Module) -> None:
        self._kinds = kinds
        self._no_adapter = PackedAdapter(layers=[[] for _ in kinds])
        self._present = [kind for kind in LayerKind if kind in kinds]
        last: Any = layers[-1]
        places = [self._present.index(kind) for kind in kinds]
        stack, last_heads = scripted(_Layers(layers, places, norm)), scripted(last.heads)
        self._all, self._last_heads = stack.call, last_heads.call
        self.refusal = stack.refusal or last_heads.refusal

    def run(
        self,
        x_PD: Tensor,
        rotary: dict[LayerKind, RotaryCosSin],
        parts: Sequence[tuple[PromptCache, Sequence[AttentionSegment]]],
        num_causal: int,
        *,
        num_layers: int | None = None,
    ) -> Tensor:
        """Runs tokens that follow the cached ones, or canvases of several caches.

        Args:
            x_PD: hidden states, float32, of all parts one after the other; no token attends to the padding.
            rotary: of the tokens' positions.
            parts: caches of one adapter, each with consecutive segments; keys and values are written into the caches'
                room, and the caches' lengths stay as they are.
            num_causal: tokens in causal mode, which come first; the two modes have scalars of their own.
            num_layers: how many layers run; all by default, and the norm after them.

        Returns:
            [P, D], float32; normalised after the last layer.
        """
        new, seen = list[list[Tensor]](), list[list[Tensor]]()
        sizes = [(cache, sum(each.num_tokens for each in segments)) for cache, segments in parts]
        for index in range(len(self._kinds) if num_layers is None else num_layers):
            rooms = [cache.room(index, num_tokens, num_behind=KEY_MULTIPLE) for cache, num_tokens in sizes]
            new.append([written for written, _read in rooms])
            seen.append([read for (_written, read), (_cache, own) in zip(rooms, parts, strict=True) for _ in own])
        segments = [each for _cache, own in parts for each in own]
        adapter = parts[0][0].adapter or self._no_adapter
        assert isinstance(adapter, PackedAdapter), "an adapter is made by the model that reads it"
        with unspecialised():
            return self._all(
                x_PD,
                new,
                seen,
                [rotary[kind].cos for kind in self._present],
                [rotary[kind].sin for kind in self._present],
                [segment.num_tokens for segment in segments],
                [segment.num_rows for segment in segments],
                [[segment.first_keys[kind] for segment in segments] for kind in self._present],
                [[segment.masks[kind] for segment in segments] for kind in self._present],
                num_causal,
                adapter.layers,
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
        x_PD = self.run(x_PD, rotary, [(cache, segments)], num_tokens, num_layers=last_idx)
        adapter = cache.adapter or self._no_adapter
        assert isinstance(adapter, PackedAdapter), "an adapter is made by the model that reads it"
        with unspecialised():
            self._last_heads(
                x_PD,
                [cache.room(last_idx, num_tokens, num_behind=KEY_MULTIPLE)[0]],
                cos_sin.cos,
                cos_sin.sin,
                num_tokens,
                adapter.layers[last_idx],
            )


class _Layers(nn.Module):
    """Runs one layer for each entry of `new`; after the last layer, the norm."""

    def __init__(self, layers: Sequence[nn.Module], kinds: Sequence[int], norm: nn.Module) -> None:
        super().__init__()
        self._norm = norm
        # Any, since the type of a module list hides the methods of its layers.
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
        return self._norm(x_PD) if len(new) == len(self._layers) else x_PD


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """A module to call.

    Attributes:
        call: calls the module.
        refusal: why `call` is not compiled, one line; empty if it is.
    """

    call: Callable[..., Any]
    refusal: str


def scripted(module: nn.Module) -> Scripted:
    """Compiles a module, where that works.

    Args:
        module: written in the part of Python that TorchScript compiles; its attributes are read once.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # The method itself: calling the module would check for hooks each time.
            return Scripted(call=cast(Any, torch.jit.script(module)).forward, refusal="")
        except Exception as error:  # whatever a torch without TorchScript raises, or one that refuses the module
            return Scripted(call=module, refusal=_first_sentence(error))


def unspecialised() -> AbstractContextManager[None]:
    """Runs scripted modules unspecialised: one program each, not one per shape."""
    return cast(Any, torch.jit).optimized_execution(False)


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
