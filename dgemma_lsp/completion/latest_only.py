"""Which handler is at work for which document: a newer one cancels the older, so no late answer replaces a newer."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class Inflight:
    """The running task by key."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    @contextmanager
    def newest(self, key: str) -> Generator[None]:
        """Makes the current task the only one of `key` for as long as the block lasts; the one before it is cancelled.

        Args:
            key: what only one task may work for.
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
