"""The protocol of fills: code actions, the request `dgemma/fill` and the command `dgemma.fill`, with progress.

A code action costs no inference: it names the command, which runs when the user has chosen it. Where nothing was
written, one sentence gives the reason.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from dgemma_engine.protocol.messages import Draft
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from dgemma_lsp.documents.uri import folder_of
from dgemma_lsp.fill.service import FillAnswer, FillQuestion
from dgemma_lsp.fill.target import FillKind, fill_kinds
from dgemma_lsp.server import conversions, fill_conversions
from dgemma_lsp.server.progress_bars import Token, new_token, work_progress

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

METHOD = "dgemma/fill"
TITLES = {
    FillKind.SELECTION: "Fill selection",
    FillKind.DESCRIPTION: "Fill from description",
    FillKind.PLACEHOLDER: "Fill placeholder",
}
_REFUSED = "the editor did not apply the fill (read-only, or changed meanwhile); nothing was written"
# Denoising steps at which the bar is half-way: their number is not known in advance.
_HALF_WAY_STEPS = 12


def register(server: DgemmaServer) -> None:
    """Registers the handlers."""
    numbers = itertools.count(1)

    async def fill_by_command(argument: Any) -> None:
        question = _question(argument)
        token = await new_token(server, f"dgemma-fill-{next(numbers)}")
        work = asyncio.create_task(_fill_and_apply(server, question, token))
        server.messages.cancel_with_request(work)
        # Cancelled by its progress bar: nothing was written, so nothing is reported.
        with suppress(asyncio.CancelledError):
            await work

    options = types.CodeActionOptions(code_action_kinds=[fill_conversions.FILL_ACTION])
    server.feature(types.TEXT_DOCUMENT_CODE_ACTION, options)(_actions)
    server.feature(METHOD)(_fill)
    server.command(fill_conversions.FILL)(fill_by_command)


async def _fill(ls: DgemmaServer, params: Any) -> dict[str, Any]:
    question, token = _question(params), fill_conversions.to_progress_token(params)
    return fill_conversions.to_fill_result(question, await _answer(ls, question, token), ls.encoding)


def _actions(ls: DgemmaServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    only = params.context.only
    kinds = fill_conversions.to_kinds(only or ())
    if only is not None and not any(_is_within(fill_conversions.FILL_ACTION, kind) for kind in kinds):
        return []
    document = ls.session.documents.get(params.text_document.uri)
    if document is None or not ls.session.settings.enabled:
        return []
    places, encoding = (params.range.start, params.range.end), ls.encoding
    start, end = sorted(document.lines.offset(place.line, place.character, encoding) for place in places)
    kinds = fill_kinds(document.text, start, end, language_id=document.language)
    return [fill_conversions.to_fill_action(TITLES[kind], kind, document, params.range) for kind in kinds]


async def _fill_and_apply(server: DgemmaServer, question: FillQuestion, token: Token | None) -> None:
    answer = await _answer(server, question, token)
    message = answer.message
    if answer.candidates:
        edit = fill_conversions.to_fill_edit(question, answer, server.encoding)
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


async def _answer(server: DgemmaServer, question: FillQuestion, token: Token | None) -> FillAnswer:
    """Returns the answer to a question; cancelling the progress bar cancels the current task."""
    path, folder = conversions.shown_path(question.uri, server.roots), folder_of(question.uri, server.roots)
    with work_progress(server, token, "Filling") as report:

        def on_draft(draft: Draft) -> None:
            report(100 * draft.step // (draft.step + _HALF_WAY_STEPS), f"denoising step {draft.step}")

        return await server.session.fills.answer(
            question,
            server.session.settings,
            encoding=server.encoding,
            path=path,
            folder=folder,
            on_draft=on_draft,
        )


def _question(params: Any) -> FillQuestion:
    try:
        return fill_conversions.to_fill_question(params)
    except ValueError as error:
        raise JsonRpcInvalidParams(str(error)) from None


def _is_within(kind: str, wider: str) -> bool:
    return not wider or kind == wider or kind.startswith(f"{wider}.")
