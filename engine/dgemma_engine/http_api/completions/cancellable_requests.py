"""Requests that their client can cancel by name, so that the connection stays open for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dgemma_engine.bounded_store import BoundedStore

_Answer = TypeVar("_Answer")
_NUM_EARLY = 1_024


@dataclass(slots=True)
class CancellableRequests:
    """The requests under way, by owner and name; those of one owner cannot be cancelled by another."""

    _works: dict[tuple[str, str], asyncio.Future[Any]] = field(
        default_factory=dict[tuple[str, str], "asyncio.Future[Any]"]
    )
    # Cancelled before they arrived: messages of two connections may overtake each other.
    _early: BoundedStore[tuple[str, str], bool] = field(default_factory=lambda: BoundedStore(_NUM_EARLY))

    async def run(self, owner: str, request: str, begin: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        """Returns the result of some work; None where the request is cancelled by name, and the work with it.

        Args:
            owner: caller and session.
            request: name of the request.
            begin: returns the work, awaited by this call alone; its end is waited for.
        """
        key = owner, request
        if (broken := self._works.get(key)) is not None:
            # Asked again: the connection of the earlier try has broken, whether that is known here or not.
            broken.cancel()
        if self._early.pop(key):
            return None
        working = asyncio.ensure_future(begin())
        self._works[key] = working
        try:
            await asyncio.wait([working])
            return None if working.cancelled() else working.result()
        finally:
            if self._works.get(key) is working:
                del self._works[key]
            if not working.done():
                working.cancel()
                await asyncio.wait([working])

    def cancel(self, owner: str, request: str) -> None:
        """Cancels a request, also one that has yet to come."""
        working = self._works.get((owner, request))
        if working is None:
            self._early.put((owner, request), True)
        else:
            working.cancel()
