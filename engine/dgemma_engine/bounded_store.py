"""Entries by key, bounded in number and in weight; the least recently used go first. Pure."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Container, Hashable
from typing import Generic, TypeVar

MOST_DOCUMENTS = 1_024
"""Most entries of a store that is bounded by weight, or whose entries are small."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedStore(Generic[K, V]):
    """A store whose newest entry always stays.

    Args:
        num_entries: most entries; 0 keeps none.
        max_weight: most weight of all entries; an entry of more stays as long as it is the newest.
        kept: keys whose entries stay, whatever the bounds are.
    """

    def __init__(
        self,
        num_entries: int,
        *,
        max_weight: int = sys.maxsize,
        kept: Container[K] = frozenset(),
    ) -> None:
        if num_entries < 0:
            raise ValueError(f"{num_entries=} must not be negative")
        self._num_entries = num_entries
        self._max_weight = max_weight
        self._kept = kept
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._weights: dict[K, int] = {}
        self._weight = 0

    def get(self, key: K) -> V | None:
        """Returns an entry; does not count as a use."""
        return self._entries.get(key)

    def use(self, key: K) -> None:
        """Makes an entry the newest, if there is one."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def put(self, key: K, value: V, *, weight: int = 0) -> None:
        """Stores an entry as the newest, in place of the one of the same key."""
        self.pop(key)
        self._entries[key], self._weights[key] = value, weight
        self._weight += weight
        while len(self._entries) > self._num_entries or self._weight > self._max_weight:
            old = (other for other in self._entries if other != key or not self._num_entries)
            oldest = next((other for other in old if other not in self._kept), None)
            if oldest is None:
                break
            self.pop(oldest)

    def make_room(self, weight: int) -> None:
        """Removes what an entry of this weight, which is about to be made, would remove when it is stored."""
        for other in [*self._entries]:
            if len(self._entries) < self._num_entries and self._weight + weight <= self._max_weight:
                break
            if other not in self._kept:
                self.pop(other)

    def pop(self, key: K) -> V | None:
        """Removes an entry and returns it."""
        self._weight -= self._weights.pop(key, 0)
        return self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """Returns keys and entries, the newest last."""
        return list(self._entries.items())

    def clear(self) -> None:
        """Removes all entries."""
        self._entries.clear()
        self._weights.clear()
        self._weight = 0
