"""The progress bar while the engine loads: when to open, move and close it. Knows no protocol types.

The bar can only be drawn once the editor has agreed to it, by which time loading may be over.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from dgemma_lsp.engine_client.status import ServerStatus, StatusKind


class ProgressBar(Protocol):
    """The editor's progress bars, each known by a token."""

    async def create(self, token: str) -> bool:
        """Asks the editor for a bar; returns whether it agreed."""
        ...

    def begin(self, token: str, status: ServerStatus) -> None:
        """Draws it."""
        ...

    def report(self, token: str, status: ServerStatus) -> None:
        """Moves it."""
        ...

    def end(self, token: str) -> None:
        """Takes it away."""
        ...


class LoadProgress:
    """Shows the loading states among those it is told.

    Args:
        bar: the editor's progress bars.
    """

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._num_bars = 0
        self._asking: asyncio.Task[None] | None = None
        self._token: str | None = None
        self._latest: ServerStatus | None = None

    def show(self, status: ServerStatus) -> None:
        """Takes the newest state."""
        self._latest = status if status.kind is StatusKind.LOADING else None
        if self._latest is None:
            if self._token is not None:
                self._bar.end(self._token)
                self._token = None
        elif self._token is not None:
            self._bar.report(self._token, self._latest)
        elif self._asking is None:
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        self._num_bars += 1
        token = f"dgemma-load-{self._num_bars}"
        try:
            agreed = await self._bar.create(token)
        finally:
            self._asking = None
        if agreed and self._latest is not None:
            self._token = token
            self._bar.begin(token, self._latest)
