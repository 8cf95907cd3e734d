"""At most one running handler per key: a newer one cancels the older, so no late answer replaces a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class LatestOnly:
    """The running task of each key."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    @contextmanager
    def newest(self, key: str) -> Generator[None]:
        """Makes the current task the only one of `key` while the block lasts; cancels the one before it.

        Args:
            key: of which only one task may run.
        """
        task = asyncio.current_task()
        assert task is not None
        if (older := self._running.get(key)) is not None:
            older.cancel()
        self._running[key] = task
        try:
            yield
        finally:
            if self._running.get(key) is task:
                del self._running[key]

    def end(self, key: str) -> None:
        """Cancels the task of `key`, if there is one.

        Args:
            key: see `newest`.
        """
        if (task := self._running.pop(key, None)) is not None:
            task.cancel()
