"""Inline completion, and the entry of the completion menu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lsprotocol import types

from dgemma_lsp.documents.store import Document
from dgemma_lsp.request import Channel, Completion, Trigger
from dgemma_lsp.server import conversions

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer


def register(server: DgemmaServer) -> None:
    """Registers the handlers that every editor gets."""
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(_inline_completion)


def register_menu(server: DgemmaServer) -> None:
    """Registers the handler of the completion menu, for editors without inline completion."""
    server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())(_menu_completion)


async def _inline_completion(
    ls: DgemmaServer, params: types.InlineCompletionParams
) -> list[types.InlineCompletionItem]:
    if (document := ls.session.documents.get(params.text_document.uri)) is None:
        return []
    trigger = conversions.to_trigger(params.context.trigger_kind)
    request = ls.request_at(document, params.position, trigger, Channel.GHOST_TEXT)
    request = conversions.with_selected(request, params.context.selected_completion_info, document.lines, ls.encoding)
    completions = await ls.session.answer(request)
    commands = _commands(ls, document, completions)
    return [
        conversions.to_inline_item(completion, document.lines, ls.encoding, accepted=command)
        for completion, command in zip(completions, commands, strict=True)
    ]


async def _menu_completion(ls: DgemmaServer, params: types.CompletionParams) -> list[types.CompletionItem]:
    document = ls.session.documents.get(params.text_document.uri)
    if document is None or not ls.session.settings.completion_fallback:
        return []
    request = ls.request_at(document, params.position, Trigger.AUTOMATIC, Channel.MENU)
    completions = await ls.session.answer(request)
    commands = _commands(ls, document, completions)
    return [
        conversions.to_menu_item(completion, request.before, document.lines, ls.encoding, accepted=command)
        for completion, command in zip(completions, commands, strict=True)
    ]


def _commands(ls: DgemmaServer, document: Document, completions: Sequence[Completion]) -> list[types.Command | None]:
    """Records the offered completions and returns the command that reports each one's acceptance."""
    numbers = ls.session.recorder.offer(document.uri, document.text, completions) if completions else None
    workspace = ls.client_capabilities.workspace
    if numbers is None or not (workspace and workspace.execute_command):
        return [None] * len(completions)
    return [conversions.to_accepted(number) for number in numbers]
