"""Learning a repository: `dgemma-engine tune` as a process, with progress, result and undo; and a hint, once.

`dgemma/learnRepository` and the command `dgemma.learnRepository` train an adapter for the folder of the workspace that
a document is in; a training that ends early keeps its state, and the next one continues it. `dgemma/forgetRepository`
and its command remove the adapter, while none is being trained. An editor that offers to learn declares
`experimental.dgemma.learnRepository` and receives `dgemma/learnHint` for a large repository; any other editor
shows a sentence.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgemma_engine.errors import AdapterStoreError
from dgemma_engine.model_store.catalogue import CATALOGUE
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from dgemma_lsp.child_process import ProcessFailed
from dgemma_lsp.documents.uri import path_of
from dgemma_lsp.engine_client.connector import NOT_ON_WINDOWS
from dgemma_lsp.repository_learning.repository_size import has_more_files
from dgemma_lsp.repository_learning.tune_process import forget, forget_command, learn, tune_command
from dgemma_lsp.server.fill_conversions import field, to_progress_token
from dgemma_lsp.server.progress_bars import Token, new_token, work_progress

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

LEARN = "dgemma/learnRepository"
FORGET = "dgemma/forgetRepository"
HINT = "dgemma/learnHint"
LEARN_COMMAND = "dgemma.learnRepository"
FORGET_COMMAND = "dgemma.forgetRepository"
MANY_FILES = 200
"""A repository of more files is worth a hint."""

_REQUEST_FAILED = types.LSPErrorCodes.RequestFailed.value


def register(server: DgemmaServer) -> None:
    """Registers the handlers."""
    numbers = itertools.count(1)

    async def learn_by_command(*uri: Any) -> None:
        token = await new_token(server, f"dgemma-learn-{next(numbers)}")
        await _run_and_tell(server, _learnt(server, _uri(uri[0] if uri else None), token))

    async def forget_by_command(*uri: Any) -> None:
        await _run_and_tell(server, _forgotten(server, _uri(uri[0] if uri else None)))

    server.feature(LEARN)(_learn)
    server.feature(FORGET)(_forget)
    server.command(LEARN_COMMAND)(learn_by_command)
    server.command(FORGET_COMMAND)(forget_by_command)


async def hint(ls: DgemmaServer) -> None:
    """Shows the hint for each folder of the workspace that can be learnt and is not, once for each."""
    for root in map(path_of, ls.roots):
        if root is None or _why_not(ls) is not None or not ls.session.settings.enabled:
            continue
        if str(root) in ls.hinted or _has_adapter(ls, root):
            continue
        if await has_more_files(root, MANY_FILES, ls.session.privacy.why_not_read) and ls.hinted.claim(str(root)):
            _tell(ls, root)


def _tell(ls: DgemmaServer, root: Path) -> None:
    reason = f"{root.name} has more than {MANY_FILES} files and is not learnt yet"
    if ls.editor_offers("learnRepository"):
        ls.protocol.notify(HINT, {"root": str(root), "uri": root.as_uri(), "message": reason})
        return
    message = f"dgemma: {reason}; the command {LEARN_COMMAND} trains an adapter for it, which takes 20 minutes"
    ls.window_show_message(types.ShowMessageParams(type=types.MessageType.Info, message=message))


async def _learn(ls: DgemmaServer, params: Any) -> dict[str, Any]:
    return await _learnt(ls, _uri(field(params, "uri", None)), to_progress_token(params))


async def _forget(ls: DgemmaServer, params: Any) -> dict[str, Any]:
    return await _forgotten(ls, _uri(field(params, "uri", None)))


async def _learnt(ls: DgemmaServer, uri: str | None, token: Token | None) -> dict[str, Any]:
    """Trains an adapter for the folder that a document is in; returns the message for the user."""
    if (why := _why_not(ls)) is not None:
        raise _failed(why)
    if _is_learning(ls):
        raise _failed("a repository is being learnt already; wait for it, or cancel it")
    ls.learner = asyncio.current_task()
    root, settings = str(_root(ls, uri)), ls.session.settings
    # A cancelled training ends its process first.
    async with ls.learning:
        command = tune_command(
            root,
            model=settings.engine_model,
            device=settings.engine_device,
            private_files=settings.private_files,
            program=ls.engine_program,
        )
        try:
            with work_progress(ls, token, f"Learning {Path(root).name}") as report:
                learnt = await learn(command, lambda percent, line: report(max(0, min(100, percent)), line))
        except ProcessFailed as error:
            raise _failed(str(error)) from None
    if learnt.is_installed:
        ls.session.adapters_changed()
    return {
        "root": root,
        "message": learnt.message,
        "installed": learnt.is_installed,
        "before": learnt.before,
        "after": learnt.after,
    }


async def _forgotten(ls: DgemmaServer, uri: str | None) -> dict[str, Any]:
    """Removes the adapter of a document's repository, or its unfinished training; returns the user's message."""
    if _is_learning(ls):
        raise _failed("a repository is being learnt; cancel that first, or wait for it")
    # A cancelled training ends its process first.
    async with ls.learning:
        owner = _owner(ls, _root(ls, uri))
        try:
            await forget(forget_command(owner, program=ls.engine_program))
        except ProcessFailed as error:
            raise _failed(str(error)) from None
    ls.session.adapters_changed()
    return {"root": owner, "message": f"what was learnt of {owner} is removed; the model answers as it was"}


def _owner(ls: DgemmaServer, root: Path) -> str:
    """Returns the root of the adapter that counts for a folder, or of the training that was begun there."""
    # An adapter that cannot be read is removed all the same.
    nearest = None if ls.adapters is None else ls.adapters.nearest(root)
    if nearest is not None:
        return str(nearest[0])
    if ls.adapters is not None and ls.adapters.training_folder(root).is_unfinished:
        return str(root)
    raise _failed(f"{root} has no adapter")


def _is_learning(ls: DgemmaServer) -> bool:
    """Whether a training runs that was not cancelled."""
    return ls.learner is not None and not ls.learner.done() and not ls.learner.cancelling()


async def _run_and_tell(ls: DgemmaServer, work: Awaitable[dict[str, Any]]) -> None:
    async def tell() -> None:
        kind = types.MessageType.Info
        try:
            message = (await work)["message"]
        except JsonRpcException as error:
            kind, message = types.MessageType.Error, error.message
        ls.window_show_message(types.ShowMessageParams(type=kind, message=f"dgemma: {message}"))

    task = asyncio.create_task(tell())
    ls.messages.cancel_with_request(task)
    # Cancelled by its progress bar: nothing is reported.
    with suppress(asyncio.CancelledError):
        await task


def _root(ls: DgemmaServer, uri: str | None) -> Path:
    """Returns the innermost folder of the workspace that holds a document, else the first."""
    roots = [root for root in map(path_of, ls.roots) if root is not None]
    if not roots:
        raise _failed("open the folder of the repository first")
    path = None if uri is None else path_of(uri)
    holding = [root for root in roots if path is not None and path.is_relative_to(root)]
    return max(holding, key=lambda root: len(root.parts), default=roots[0])


def _why_not(ls: DgemmaServer) -> str | None:
    """Returns why no repository can be learnt with these settings; None where it can."""
    board = ls.session.board
    if board.host:
        return f"the engine runs on {board.host}, where no adapter of this machine is used"
    if sys.platform == "win32":
        return NOT_ON_WINDOWS
    entry = CATALOGUE.get(board.model.runs)
    if entry is not None and entry.config.get("model_type") != "llama":
        return f"the model {board.model.runs} takes no adapters; choose small with dgemma.engine.model"
    return None


def _has_adapter(ls: DgemmaServer, root: Path) -> bool:
    """Whether there is an adapter, one that is off or damaged included."""
    try:
        return ls.adapters is not None and ls.adapters.find(root) is not None
    except AdapterStoreError:
        return True


def _uri(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise JsonRpcInvalidParams("uri must be a text or null")
    return value


def _failed(message: str) -> JsonRpcException:
    return JsonRpcException(message, code=_REQUEST_FAILED)
