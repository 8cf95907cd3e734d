"""Entries by key, bounded in number and in weight; the least recently used go first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedStore(Generic[K, V]):
    """A store whose newest entry always stays.

    Args:
        num_entries: most entries; 0 keeps none.
        weigh: returns an entry's weight; None bounds the number only.
        max_weight: most weight of all entries; an entry of more stays as long as it is the newest.
    """

    def __init__(self, num_entries: int, *, weigh: Callable[[V], int] | None = None, max_weight: int = 0) -> None:
        if num_entries < 0:
            raise ValueError(f"{num_entries=} must not be negative")
        self._num_entries = num_entries
        self._weigh = weigh
        self._max_weight = max_weight
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
        entries, weigh = self._entries, self._weigh
        entries[key] = value
        entries.move_to_end(key)
        while len(entries) > self._num_entries or (
            weigh is not None and len(entries) > 1 and sum(map(weigh, entries.values())) > self._max_weight
        ):
            entries.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Removes an entry and returns it."""
        return self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """Returns keys and entries, the newest last."""
        return list(self._entries.items())

    def clear(self) -> None:
        """Removes all entries."""
        self._entries.clear()
