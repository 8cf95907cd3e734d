"""Keys and values of a prompt, layer by layer: written by the causal encoder, only read by the canvas.

Layers keep their full length, so that a prompt can be cut back to any earlier point; the window of sliding ones is
applied when they are read. With `edit_tokens` sliding layers keep their window and that many tokens before it, and the
prompt can be cut back to within these. A cache may hold a second text beside the prompt, in places reserved before it:
the prompt does not attend to it, what follows attends to both (parallel context, arXiv 2212.10947). A cache belongs
to one adapter, or to none: its keys and values are of no use to another, so a pass takes the adapter from its cache.

Shape legend: B rows, G key-value heads, T new tokens, S tokens so far, L canvas positions, d head size.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

import torch
from dgemma_kernels.tensors.kv_store import place
from torch import Tensor

from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.dimensions import ModelDimensions
from dgemma_engine.model.kv_rows import KVRows, sliding_rows
from dgemma_engine.model.model_adapter import ModelAdapter


class KVCache(Protocol):
    """The interface of a cache for the model."""

    @property
    def length(self) -> int:
        """Tokens whose keys and values every layer holds, and places reserved before them."""
        ...

    @property
    def adapter(self) -> ModelAdapter | None:
        """Takes part in every pass over this cache; None is the model as it is."""
        ...

    @property
    def prompt_start(self) -> int:
        """The prompt's first place, from which on `prefill` attends."""
        ...

    @property
    def seen_from(self) -> int:
        """The first place that tokens after the prompt attend to: that of the text beside it, where there is one."""
        ...

    def append(self, layer_idx: int, k_BGTd: Tensor, v_BGTd: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new tokens after the old ones and returns all keys and values, [B, G, S + T, d]."""
        ...

    def advance(self, num_tokens: int) -> None:
        """Counts tokens as stored once every layer has appended them."""
        ...

    def remember(self, ids_BT: Tensor) -> None:
        """Stores the ids of the tokens that the next `advance` counts, for a family that reads them again."""
        ...

    def ids(self) -> Tensor:
        """Returns the ids of the prompt's tokens, [B, S] int64, at least one; all must have been remembered."""
        ...

    def with_canvas(
        self, layer_idx: int, k_BGLd: Tensor, v_BGLd: Tensor, num_visible: int, *, num_pending: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Returns the last `num_visible` stored tokens followed by the canvas; stores nothing.

        Args:
            layer_idx: whose keys and values.
            k_BGLd: keys of the canvas.
            v_BGLd: values of the canvas.
            num_visible: stored tokens that the canvas attends to; pending ones are the last of them.
            num_pending: tokens that this layer has appended and `advance` has not counted yet.
        """
        ...


class PromptCache:
    """Preallocated keys and values of one prompt.

    The room after the prompt is scratch for canvases: what `with_canvas` writes there is never part of the prompt,
    so a denoising step copies no prompt key. It holds 0 until something is written.

    Args:
        config: dimensions of the model.
        capacity: tokens to make room for, prompt and canvas together; grows by itself.
        dtype: of keys and values.
        device: where they live.
        parallel_tokens: places reserved for a text beside the prompt.
        adapter: see `KVCache`; made for the model that will write here.
        edit_tokens: tokens before the window that sliding layers keep, for a prompt that is cut back; None keeps all.
            Only models that read through `place` can have sliding layers that dropped some.

    Attributes:
        length: places taken or reserved; a token's place is its position.
        adapter, prompt_start, seen_from: see `KVCache`.
    """

    def __init__(
        self,
        config: ModelDimensions,
        *,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        parallel_tokens: int = 0,
        adapter: ModelAdapter | None = None,
        edit_tokens: int | None = None,
    ) -> None:
        assert edit_tokens is None or not parallel_tokens, "a text beside the prompt needs its places"
        self.adapter = adapter
        self._kinds, self._window, self._edit_tokens = config.layer_kinds, config.sliding_window, edit_tokens
        capacity = max(capacity, parallel_tokens)
        self.length = self.prompt_start = self.seen_from = parallel_tokens
        self._layers = [
            KVRows(
                config.num_kv_heads[kind],
                min(capacity, self._most_rows(kind)),
                config.head_dim[kind],
                dtype=dtype,
                device=device,
            )
            for kind in config.layer_kinds
        ]
        # The prompt's length when it was last settled.
        self._settled = 0
        self._ids_1S = torch.empty(1, capacity, dtype=torch.int64, device=device)

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(rows.kv.nbytes for rows in self._layers)

    @property
    def num_prompt(self) -> int:
        """Prompt tokens stored."""
        return self.length - self.prompt_start

    @contextmanager
    def beside_prompt(self, num_tokens: int) -> Generator[None]:
        """Within the block, passes write another text beside the prompt, and attend to that text only.

        It stands directly before the prompt and takes the place of the one before; without a pass, or after a failure,
        there is none.

        Args:
            num_tokens: of that text, at most as many as are reserved.

        Raises:
            ValueError: they are more.
        """
        length, prompt_start = self.length, self.prompt_start
        if not 0 <= num_tokens <= prompt_start:
            raise ValueError(f"{num_tokens=} must be between 0 and {prompt_start}")
        self.length = self.prompt_start = prompt_start - num_tokens
        self.seen_from = prompt_start
        try:
            yield
            if self.length == prompt_start:
                self.seen_from = prompt_start - num_tokens
        finally:
            self.length, self.prompt_start = length, prompt_start

    def append(self, layer_idx: int, k_BGTd: Tensor, v_BGTd: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVCache.append`; B must be 1."""
        return self._write(layer_idx, k_BGTd, v_BGTd, self.length, start=0)

    def advance(self, num_tokens: int) -> None:
        """See `KVCache.advance`."""
        self.length += num_tokens

    def remember(self, ids_BT: Tensor) -> None:
        """See `KVCache.remember`; B must be 1."""
        end = self.length + ids_BT.shape[1]
        if end > self._ids_1S.shape[1]:
            self._ids_1S = torch.cat((self._ids_1S, self._ids_1S.new_empty(1, end)), dim=1)
        self._ids_1S[:, self.length : end] = ids_BT

    def ids(self) -> Tensor:
        """See `KVCache.ids`."""
        assert self.num_prompt, "a canvas of this family needs a prompt of at least one token"
        return self._ids_1S[:, self.prompt_start : self.length]

    def with_canvas(
        self, layer_idx: int, k_BGLd: Tensor, v_BGLd: Tensor, num_visible: int, *, num_pending: int = 0
    ) -> tuple[Tensor, Tensor]:
        """See `KVCache.with_canvas`; B must be 1."""
        length = self.length + num_pending
        return self._write(layer_idx, k_BGLd, v_BGLd, length, start=max(0, length - num_visible))

    def room(
        self, layer_idx: int, num_tokens: int, *, num_pending: int = 0, num_behind: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Returns where the keys and values of new tokens go, and all of them up to there, without copying any.

        Args:
            layer_idx: whose keys and values.
            num_tokens: new ones, whether they are to be kept (`advance`) or not.
            num_pending: see `with_canvas`.
            num_behind: positions after the new ones that the second view holds too; their values are finite.

        Returns:
            Two views, keys first and values second: [2, G, num_tokens, d] to be written, and [2, G, S, d] from the
            first token on to `num_behind` positions after them.
        """
        rows, length = self._layers[layer_idx], self.length + num_pending
        assert not rows.first, "this layer dropped tokens: read it through `place`"
        end = length + num_tokens
        if end + num_behind > rows.kv.shape[2]:
            rows.grow(end + num_behind)
        return rows.kv[:, :, length:end], rows.kv[:, :, : end + num_behind]

    def place(self, layer_idx: int, num_tokens: int) -> list[int]:
        """Returns where all keys and all values of a layer lie, with room for `num_tokens` more: `KVStore.place_4`.

        They stay there until a pass needs more room than there is, or the cache is dropped.
        """
        rows, end = self._layers[layer_idx], self.length + num_tokens
        most = self._most_rows(self._kinds[layer_idx])
        if not rows.holds(end) and end > most:
            self._drop(rows, most, num_tokens)
        if not rows.holds(end):
            rows.grow(end, most)
        k_GSd, v_GSd = rows.kv
        return place(k_GSd, v_GSd, rows.first)

    def settle(self) -> None:
        """Settles the stored tokens as the prompt: sliding layers may drop those that no later token attends to.

        Tokens that follow can be cut back to here until the next call.
        """
        self._settled = self.length

    @property
    def least_length(self) -> int:
        """The shortest prompt, except an empty one, that this one can be cut back to."""
        return max((rows.first + self._window - 1 for rows in self._layers if rows.first), default=0)

    def copy_last(self) -> list[Tensor]:
        """Returns copies of the last token's keys and values, layer by layer, for `restore_last`."""
        return [rows.kv[:, :, self.length - 1 - rows.first].clone() for rows in self._layers]

    def restore_last(self, length: int, copies: list[Tensor]) -> None:
        """Makes the cache what it was at `copy_last`, whatever was appended since to one token less.

        Args:
            length: tokens stored then.
            copies: what it returned.
        """
        self.length = length
        for rows, last in zip(self._layers, copies, strict=True):
            rows.kv[:, :, length - 1 - rows.first] = last

    def truncate(self, length: int) -> None:
        """Drops the tokens from the place `length` on.

        Raises:
            ValueError: it lies before the prompt, after what is stored, or where sliding layers dropped too much.
        """
        least = max(self.prompt_start, self.least_length)
        if length != self.prompt_start and not least <= length <= self.length:
            raise ValueError(f"{length=} must be between {least} and {self.length}")
        self.length = length
        if length == self.prompt_start:
            for rows in self._layers:
                rows.first = 0

    def _write(self, layer_idx: int, k: Tensor, v: Tensor, length: int, *, start: int) -> tuple[Tensor, Tensor]:
        """Writes after the first `length` tokens of a layer; returns its keys and values from `start` to there."""
        new, so_far = self.room(layer_idx, k.shape[2], num_pending=length - self.length)
        new[:1], new[1:] = k, v
        return so_far[:1, :, start:], so_far[1:, :, start:]

    def _most_rows(self, kind: LayerKind) -> int:
        """Returns the most rows of a layer, unless one pass needs more."""
        if self._edit_tokens is None or kind is not LayerKind.SLIDING:
            return sys.maxsize
        return sliding_rows(self._window, self._edit_tokens)

    def _drop(self, rows: KVRows, most: int, num_tokens: int) -> None:
        """Drops tokens that no token after the settled prompt attends to, except `edit_tokens`, or fewer to make room.

        The settled prompt can then be cut back by as many tokens.
        """
        assert self._edit_tokens is not None
        settled = min(self._settled, self.length)
        room = most - num_tokens - (self.length - settled) - self._window
        start = settled - self._window - min(self._edit_tokens, max(0, room))
        rows.drop(start, self.length, most)


def prompt_cache(cache: KVCache) -> PromptCache:
    """Returns `cache`, for a backend that writes keys and values where they are kept."""
    assert isinstance(cache, PromptCache), "this model writes into the room of a prompt cache"
    return cache
