"""Keys and values that keep their gradients: the cache that training passes to a model.

Implements `model.kv_cache.KVCache` for any number of rows; nothing stands beside its prompt.

Shape legend: B rows, G key-value heads, T new tokens, S tokens so far, L canvas positions, d head size.
"""

from __future__ import annotations

import torch
from torch import Tensor


class GraphKV:
    """Keys and values that keep their gradients, for any number of rows: what training passes to the model.

    Attributes:
        adapter: none; a trainer passes the terms it trains to the layers.
        length: tokens stored.
        prompt_start: see `KVCache.prompt_start`; nothing stands beside this prompt.
        seen_from: likewise.
    """

    adapter: None = None
    prompt_start: int = 0
    seen_from: int = 0

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._ids: Tensor | None = None
        self.length = 0

    def append(self, layer_idx: int, k_BGTd: Tensor, v_BGTd: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVCache.append`."""
        if layer_idx in self._layers:
            k_old, v_old = self._layers[layer_idx]
            k_BGTd, v_BGTd = torch.cat((k_old, k_BGTd), dim=2), torch.cat((v_old, v_BGTd), dim=2)
        self._layers[layer_idx] = (k_BGTd, v_BGTd)
        return k_BGTd, v_BGTd

    def layer(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of a layer, [B, G, S, d] each."""
        return self._layers[layer_idx]

    def advance(self, num_tokens: int) -> None:
        """See `KVCache.advance`."""
        self.length += num_tokens

    def remember(self, ids_BT: Tensor) -> None:
        """See `KVCache.remember`."""
        self._ids = ids_BT if self._ids is None else torch.cat((self._ids[:, : self.length], ids_BT), dim=1)

    def ids(self) -> Tensor:
        """See `KVCache.ids`."""
        assert self._ids is not None, "a canvas of this family needs a prompt of at least one token"
        return self._ids[:, : self.length]

    def with_canvas(
        self, layer_idx: int, k_BGLd: Tensor, v_BGLd: Tensor, num_visible: int, *, num_pending: int = 0
    ) -> tuple[Tensor, Tensor]:
        """See `KVCache.with_canvas`."""
        k_BGSd, v_BGSd = self._layers[layer_idx]
        length = self.length + num_pending
        start = max(0, length - num_visible)
        k_old, v_old = k_BGSd[:, :, start:length], v_BGSd[:, :, start:length]
        return torch.cat((k_old, k_BGLd), dim=2), torch.cat((v_old, v_BGLd), dim=2)

    def truncate(self, length: int) -> None:
        """Drops all but the first `length` tokens of every layer."""
        self._layers = {i: (k[:, :, :length], v[:, :, :length]) for i, (k, v) in self._layers.items()}
        self.length = length

    def repeat(self, num_copies: int) -> None:
        """Gives every row `num_copies` rows of its own, one after the other, for canvases that share its prompt."""
        self._layers = {
            i: (k.repeat_interleave(num_copies, 0), v.repeat_interleave(num_copies, 0))
            for i, (k, v) in self._layers.items()
        }
        self._ids = None if self._ids is None else self._ids.repeat_interleave(num_copies, 0)
