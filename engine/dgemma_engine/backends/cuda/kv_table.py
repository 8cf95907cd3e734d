"""The table of addresses at which kernels read keys and values: a row for each layer, of one prompt at a time.

Shape legend: Y layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dgemma_kernels.tensors.kv_store import NUM_FIELDS, KVStore

from dgemma_engine.model.dimensions import ModelDimensions
from dgemma_engine.model.kv_cache import PromptCache

Stores = Sequence[KVStore]
"""Where the keys and values of each layer lie."""


class KVTable:
    """Addresses of the keys and values of the current prompt.

    Args:
        config: dimensions of the model.
        dtype: of keys and values.
        device: where the table lies.

    Attributes:
        stores: one row of the table for each layer, the same tensors for every prompt.
    """

    def __init__(self, config: ModelDimensions, dtype: torch.dtype, device: torch.device) -> None:
        self._places_Y4 = torch.zeros(len(config.layer_kinds), NUM_FIELDS, dtype=torch.int64, device=device)
        self._places: list[list[int]] | None = None
        self.stores: Stores = [
            KVStore(place_4=place_4, num_kv=config.num_kv_heads[kind], head_dim=config.head_dim[kind], dtype=dtype)
            for kind, place_4 in zip(config.layer_kinds, self._places_Y4, strict=True)
        ]

    def write(self, cache: PromptCache, num_tokens: int) -> None:
        """Makes a prompt the current one, with room for `num_tokens` more."""
        places = [cache.place(layer_idx, num_tokens) for layer_idx in range(len(self.stores))]
        if places != self._places:
            # Needs no wait: work on the former prompt comes first in the stream.
            self._places_Y4.copy_(torch.tensor(places, dtype=torch.int64), non_blocking=True)
            self._places = places
