"""Progress bars of the editor: one while the engine loads, and a cancellable one while one piece of work lasts.

A bar can only be drawn once the editor has agreed to it, by which time loading may be over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from dgemma_lsp.engine_client.status import ServerStatus, StatusKind

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer


# Longest wait of the work for its progress bar.
_BAR_TIMEOUT_S = 1.0

Token = int | str
Report = Callable[[int, str], None]
"""Updates the bar; called with a percentage and a text."""


class LoadProgress:
    """Shows loading states as a progress bar; other states close it.

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


@contextmanager
def work_progress(server: DgemmaServer, token: Token | None, title: str) -> Generator[Report]:
    """Shows a progress bar for as long as the block lasts; cancelling the bar cancels the current task.

    Args:
        server: of the editor.
        token: the bar's, as the editor or `new_token` gave it; None shows nothing.
        title: the name of the work.
    """
    task, bar = asyncio.current_task(), server.work_done_progress
    assert task is not None

    def report(percent: int, message: str) -> None:
        if token is not None:
            bar.report(token, types.WorkDoneProgressReport(percentage=percent, message=message, cancellable=True))

    def stop(_token: object) -> None:
        task.cancel()

    if token is None:
        yield report
        return
    bar.begin(token, types.WorkDoneProgressBegin(title=title, percentage=0, cancellable=True))
    bar.tokens[token].add_done_callback(stop)
    try:
        yield report
    finally:
        # An editor may use one token twice.
        bar.tokens.pop(token, None)
        bar.end(token, types.WorkDoneProgressEnd())


async def new_token(server: DgemmaServer, token: str) -> str | None:
    """Asks the editor for a progress bar; None if it shows none, or does not answer in time."""
    window = server.client_capabilities.window
    if window is None or not window.work_done_progress:
        return None
    try:
        await asyncio.wait_for(server.work_done_progress.create_async(token), _BAR_TIMEOUT_S)
    except (JsonRpcException, TimeoutError):
        return None
    return token
