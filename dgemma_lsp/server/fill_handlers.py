"""The protocol of fills: code actions, the request `dgemma/fill` and the command `dgemma.fill`, with progress.

A code action costs no inference: it names the command, which runs when the user has chosen. One sentence says why
nothing was written.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

from dgemma_engine.protocol.messages import Draft, OnDraft
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from dgemma_lsp.fill.service import FillAnswer, FillQuestion
from dgemma_lsp.fill.target import FillKind, fill_kinds
from dgemma_lsp.server import conversions, fill_conversions
from dgemma_lsp.session import Session

METHOD = "dgemma/fill"
TITLES = {
    FillKind.SELECTION: "Fill selection",
    FillKind.DESCRIPTION: "Fill from description",
    FillKind.PLACEHOLDER: "Fill placeholder",
}
_REFUSED = "the editor did not apply the fill (read-only, or changed meanwhile); nothing was written"
# Denoising steps at which the bar is half-way: how many there will be is not known before the end.
_HALF_WAY_STEPS = 12
# A fill does not wait any longer for its bar.
_BAR_TIMEOUT_S = 1.0

Token = int | str
Follow = Callable[[asyncio.Task[Any]], None]


def add_fills(server: LanguageServer, session: Session, *, cancel_with_request: Follow) -> None:
    """Registers the handlers.

    Args:
        server: of one editor.
        session: its session.
        cancel_with_request: cancels a task when the editor takes back the request that is being handled.
    """
    numbers = itertools.count(1)

    def actions(params: types.CodeActionParams) -> list[types.CodeAction]:
        return _actions(server, session, params)

    async def fill(params: Any) -> dict[str, Any]:
        question, token = _question(params), fill_conversions.to_progress_token(params)
        answer = await _answer(server, session, question, token)
        return fill_conversions.to_fill_result(question, answer, _encoding(server))

    async def fill_by_command(argument: Any) -> None:
        question = _question(argument)
        token = await _new_token(server, f"dgemma-fill-{next(numbers)}")
        work = asyncio.create_task(_fill_and_apply(server, session, question, token))
        cancel_with_request(work)
        # Cancelled by its progress bar, it has nothing to say: nothing was written.
        with suppress(asyncio.CancelledError):
            await work

    options = types.CodeActionOptions(code_action_kinds=[fill_conversions.FILL_ACTION])
    server.feature(types.TEXT_DOCUMENT_CODE_ACTION, options)(actions)
    server.feature(METHOD)(fill)
    server.command(fill_conversions.FILL)(fill_by_command)


def _actions(server: LanguageServer, session: Session, params: types.CodeActionParams) -> list[types.CodeAction]:
    only = params.context.only
    kinds = fill_conversions.to_kinds(only or ())
    if only is not None and not any(_is_within(fill_conversions.FILL_ACTION, kind) for kind in kinds):
        return []
    document = session.documents.get(params.text_document.uri)
    if document is None or not session.settings.enabled:
        return []
    places, encoding = (params.range.start, params.range.end), _encoding(server)
    start, end = sorted(document.lines.offset(place.line, place.character, encoding) for place in places)
    kinds = fill_kinds(document.text, start, end, language_id=document.language)
    return [fill_conversions.to_fill_action(TITLES[kind], kind, document, params.range) for kind in kinds]


async def _fill_and_apply(
    server: LanguageServer, session: Session, question: FillQuestion, token: Token | None
) -> None:
    answer = await _answer(server, session, question, token)
    message = answer.message
    if answer.candidates:
        edit = fill_conversions.to_fill_edit(question, answer, _encoding(server))
        params = types.ApplyWorkspaceEditParams(edit=edit, label="dgemma: fill")
        try:
            result = await server.workspace_apply_edit_async(params)
            # Some editors answer null.
            applied = cast("types.ApplyWorkspaceEditResult | None", result) is not None and result.applied
        except JsonRpcException:
            applied = False
        message = "" if applied else _REFUSED
    if message:
        shown = types.ShowMessageParams(type=types.MessageType.Info, message=f"dgemma: {message}")
        server.window_show_message(shown)


async def _answer(server: LanguageServer, session: Session, question: FillQuestion, token: Token | None) -> FillAnswer:
    """Returns what came of a question; a cancelled progress bar cancels the current task."""
    path = conversions.shown_path(question.uri, _roots(server))
    with _progress(server, token) as on_draft:
        return await session.fills.answer(
            question, session.settings, encoding=_encoding(server), path=path, on_draft=on_draft
        )


@contextmanager
def _progress(server: LanguageServer, token: Token | None) -> Generator[OnDraft]:
    """Shows a progress bar for as long as the block lasts; cancelling the bar cancels the current task."""
    task, bar = asyncio.current_task(), server.work_done_progress
    assert task is not None

    def report(draft: Draft) -> None:
        if token is not None:
            percent = 100 * draft.step // (draft.step + _HALF_WAY_STEPS)
            message = f"denoising step {draft.step}"
            bar.report(token, types.WorkDoneProgressReport(percentage=percent, message=message, cancellable=True))

    def stop(_token: object) -> None:
        task.cancel()

    if token is None:
        yield report
        return
    bar.begin(token, types.WorkDoneProgressBegin(title="Filling", percentage=0, cancellable=True))
    bar.tokens[token].add_done_callback(stop)
    try:
        yield report
    finally:
        # An editor may use one token twice.
        bar.tokens.pop(token, None)
        bar.end(token, types.WorkDoneProgressEnd())


async def _new_token(server: LanguageServer, token: str) -> str | None:
    """Asks the editor for a progress bar; None if it has none, or does not say so in time."""
    window = server.client_capabilities.window
    if window is None or not window.work_done_progress:
        return None
    try:
        await asyncio.wait_for(server.work_done_progress.create_async(token), _BAR_TIMEOUT_S)
    except (JsonRpcException, TimeoutError):
        return None
    return token


def _question(params: Any) -> FillQuestion:
    try:
        return fill_conversions.to_fill_question(params)
    except ValueError as error:
        raise JsonRpcInvalidParams(str(error)) from None


def _is_within(kind: str, wider: str) -> bool:
    return not wider or kind == wider or kind.startswith(f"{wider}.")


def _encoding(server: LanguageServer) -> Any:
    return conversions.to_encoding(server.workspace.position_encoding)


def _roots(server: LanguageServer) -> tuple[str, ...]:
    return conversions.to_roots(server.workspace.folders.values(), server.workspace.root_uri)
