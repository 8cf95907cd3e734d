"""The progress bar while the engine loads: when to open, update and close it.

The bar can only be drawn once the editor has agreed to it, by which time loading may be over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dgemma_lsp.engine_client.status import ServerStatus, StatusKind

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer


class LoadProgress:
    """Shows loading states as a progress bar, and nothing of other states.

    Args:
        bar: asks the editor for a bar, and opens, updates and closes it.
    """

    def __init__(self, bar: DgemmaServer) -> None:
        self._bar = bar
        self._num_bars = 0
        self._asking: asyncio.Task[None] | None = None
        self._token: str | None = None
        self._latest: ServerStatus | None = None

    def show(self, status: ServerStatus) -> None:
        """Shows the newest state."""
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
