"""Keys and values of a prompt, layer by layer: written by the causal encoder, only read by the canvas.

Sliding layers keep their full length, so that a prompt can be cut back to any earlier point; their window is applied
when they are read. Shape legend: B rows, G key-value heads, T new tokens, S tokens so far, L canvas positions,
d head size.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dgemma_engine.config import LayerKind, ModelConfig


class KVCache(Protocol):
    """What the model needs of a cache."""

    @property
    def length(self) -> int:
        """Tokens whose keys and values every layer holds."""
        ...

    def append(self, layer_idx: int, k_BGTd: Tensor, v_BGTd: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new tokens behind the old ones and returns all keys and values, [B, G, S + T, d]."""
        ...

    def advance(self, num_tokens: int) -> None:
        """Counts tokens as stored once every layer has appended them."""
        ...

    def with_canvas(
        self, layer_idx: int, k_BGLd: Tensor, v_BGLd: Tensor, num_visible: int, *, num_pending: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Returns the last `num_visible` stored tokens followed by the canvas; stores nothing.

        Args:
            layer_idx: whose keys and values.
            k_BGLd: keys of the canvas.
            v_BGLd: values of the canvas.
            num_visible: stored tokens that the canvas may see; those that are pending are the last of them.
            num_pending: tokens that this layer has appended and `advance` has not counted yet.
        """
        ...


class PromptCache:
    """Preallocated keys and values of one prompt.

    The room behind the prompt is scratch for canvases: what `with_canvas` writes there is never part of the prompt,
    so a denoising step copies no prompt key.

    Args:
        config: dimensions of the model.
        capacity: tokens to make room for, prompt and canvas together; grows by itself.
        dtype: of keys and values.
        device: where they live.
    """

    def __init__(self, config: ModelConfig, *, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self._kinds = config.layer_kinds
        self._length = 0
        self._k = [self._empty(config, kind, capacity, dtype, device) for kind in config.layer_kinds]
        self._v = [self._empty(config, kind, capacity, dtype, device) for kind in config.layer_kinds]

    @staticmethod
    def _empty(config: ModelConfig, kind: LayerKind, capacity: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(1, config.num_kv_heads[kind], capacity, config.head_dim[kind], dtype=dtype, device=device)

    @property
    def length(self) -> int:
        """Prompt tokens stored."""
        return self._length

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(tensor.nbytes for tensor in (*self._k, *self._v))

    def append(self, layer_idx: int, k_BGTd: Tensor, v_BGTd: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVCache.append`; B must be 1."""
        end = self._write(layer_idx, k_BGTd, v_BGTd, self._length)
        return self._k[layer_idx][:, :, :end], self._v[layer_idx][:, :, :end]

    def advance(self, num_tokens: int) -> None:
        """See `KVCache.advance`."""
        self._length += num_tokens

    def with_canvas(
        self, layer_idx: int, k_BGLd: Tensor, v_BGLd: Tensor, num_visible: int, *, num_pending: int = 0
    ) -> tuple[Tensor, Tensor]:
        """See `KVCache.with_canvas`; B must be 1."""
        length = self._length + num_pending
        end, start = self._write(layer_idx, k_BGLd, v_BGLd, length), max(0, length - num_visible)
        return self._k[layer_idx][:, :, start:end], self._v[layer_idx][:, :, start:end]

    def copy_last(self) -> list[tuple[Tensor, Tensor]]:
        """Returns copies of the last token's keys and values, layer by layer, for `restore_last`."""
        place = slice(self._length - 1, self._length)
        return [(k[:, :, place].clone(), v[:, :, place].clone()) for k, v in zip(self._k, self._v, strict=True)]

    def restore_last(self, length: int, copies: list[tuple[Tensor, Tensor]]) -> None:
        """Makes the cache what it was at `copy_last`, whatever was appended since to one token less.

        Args:
            length: tokens stored then.
            copies: what it returned.
        """
        self._length = length
        for k, v, (k_last, v_last) in zip(self._k, self._v, copies, strict=True):
            k[:, :, length - 1 : length], v[:, :, length - 1 : length] = k_last, v_last

    def truncate(self, length: int) -> None:
        """Forgets all but the first `length` tokens.

        Raises:
            ValueError: `length` is negative or more than is stored.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"{length=} must be between 0 and {self._length}")
        self._length = length

    def _write(self, layer_idx: int, k: Tensor, v: Tensor, length: int) -> int:
        """Writes behind the first `length` tokens of a layer and returns where the new ones end."""
        end = length + k.shape[2]
        if end > self._k[layer_idx].shape[2]:
            self._grow(layer_idx, length, end)
        self._k[layer_idx][:, :, length:end] = k
        self._v[layer_idx][:, :, length:end] = v
        return end

    def _grow(self, layer_idx: int, length: int, needed: int) -> None:
        for store in (self._k, self._v):
            old = store[layer_idx]
            capacity = max(needed, 2 * old.shape[2])
            store[layer_idx] = old.new_empty(old.shape[0], old.shape[1], capacity, old.shape[3])
            store[layer_idx][:, :, :length] = old[:, :, :length]


class GraphKV:
    """Keys and values that keep their gradients, for any number of rows: what training passes to the model."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens stored."""
        return self._length

    def append(self, layer_idx: int, k_BGTd: Tensor, v_BGTd: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVCache.append`."""
        if layer_idx in self._layers:
            k_old, v_old = self._layers[layer_idx]
            k_BGTd, v_BGTd = torch.cat((k_old, k_BGTd), dim=2), torch.cat((v_old, v_BGTd), dim=2)
        self._layers[layer_idx] = (k_BGTd, v_BGTd)
        return k_BGTd, v_BGTd

    def advance(self, num_tokens: int) -> None:
        """See `KVCache.advance`."""
        self._length += num_tokens

    def with_canvas(
        self, layer_idx: int, k_BGLd: Tensor, v_BGLd: Tensor, num_visible: int, *, num_pending: int = 0
    ) -> tuple[Tensor, Tensor]:
        """See `KVCache.with_canvas`."""
        k_BGSd, v_BGSd = self._layers[layer_idx]
        length = self._length + num_pending
        start = max(0, length - num_visible)
        k_old, v_old = k_BGSd[:, :, start:length], v_BGSd[:, :, start:length]
        return torch.cat((k_old, k_BGLd), dim=2), torch.cat((v_old, v_BGLd), dim=2)

    def truncate(self, length: int) -> None:
        """Forgets all but the first `length` tokens of every layer."""
        self._layers = {i: (k[:, :, :length], v[:, :, :length]) for i, (k, v) in self._layers.items()}
        self._length = length

    def repeat(self, num_copies: int) -> None:
        """Gives every row `num_copies` rows of its own, one after the other, for canvases that share its prompt."""
        self._layers = {
            i: (k.repeat_interleave(num_copies, 0), v.repeat_interleave(num_copies, 0))
            for i, (k, v) in self._layers.items()
        }
