"""Entries by key, bounded in number and in weight; the least recently used go first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedStore(Generic[K, V]):
    """A store whose newest entry always stays.

    Args:
        num_entries: most entries; 0 keeps none.
        weigh: returns an entry's weight; None bounds the number only.
        max_weight: most weight of all entries; an entry of more stays as long as it is the newest.
        kept: keys whose entries stay, whatever the bounds are.
    """

    def __init__(
        self,
        num_entries: int,
        *,
        weigh: Callable[[V], int] | None = None,
        max_weight: int = 0,
        kept: Container[K] = frozenset(),
    ) -> None:
        if num_entries < 0:
            raise ValueError(f"{num_entries=} must not be negative")
        self._num_entries = num_entries
        self._weigh = weigh
        self._max_weight = max_weight
        self._kept = kept
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Returns an entry; leaves its age alone."""
        return self._entries.get(key)

    def use(self, key: K) -> None:
        """Makes an entry the newest, if there is one."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def put(self, key: K, value: V) -> None:
        """Stores an entry as the newest, in place of the one of the same key."""
        entries = self._entries
        entries[key] = value
        entries.move_to_end(key)
        for other in [*entries][: -1 if self._num_entries else None]:
            is_light = self._weigh is None or sum(map(self._weigh, entries.values())) <= self._max_weight
            if len(entries) <= self._num_entries and is_light:
                break
            if other not in self._kept:
                del entries[other]

    def pop(self, key: K) -> V | None:
        """Removes an entry and returns it."""
        return self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """Returns keys and entries, the newest last."""
        return list(self._entries.items())

    def clear(self) -> None:
        """Removes all entries."""
        self._entries.clear()
