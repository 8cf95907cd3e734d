"""A cancellable progress bar of the editor, for as long as one piece of work lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

# The work does not wait any longer for its bar.
_BAR_TIMEOUT_S = 1.0

Token = int | str
Report = Callable[[int, str], None]
"""Updates the bar; called with a percentage and a text."""


@contextmanager
def work_progress(server: DgemmaServer, token: Token | None, title: str) -> Generator[Report]:
    """Shows a progress bar for as long as the block lasts; cancelling the bar cancels the current task.

    Args:
        server: of the editor.
        token: the bar's, as the editor or `new_token` gave it; None shows nothing.
        title: what the work is.
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
    """Asks the editor for a progress bar; None if it has none, or does not say so in time."""
    window = server.client_capabilities.window
    if window is None or not window.work_done_progress:
        return None
    try:
        await asyncio.wait_for(server.work_done_progress.create_async(token), _BAR_TIMEOUT_S)
    except (JsonRpcException, TimeoutError):
        return None
    return token
