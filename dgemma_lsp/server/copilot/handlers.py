"""Methods that plugins for GitHub Copilot's language server call: notifications are counted, next edits are empty.

A suggestion is known by the number in its item's command, so a client that cannot run commands is not counted here.
Unreadable parameters are ignored: a notification has no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from dgemma_lsp.server.conversions import ACCEPTED
from dgemma_lsp.server.fill_conversions import field

if TYPE_CHECKING:
    from dgemma_lsp.server.app import DgemmaServer

SHOWN = "textDocument/didShowCompletion"
PARTLY_ACCEPTED = "textDocument/didPartiallyAcceptCompletion"
FOCUSED = "textDocument/didFocus"
NEXT_EDIT = "textDocument/copilotInlineEdit"
NOTIFICATIONS = frozenset({SHOWN, PARTLY_ACCEPTED, FOCUSED})


def register(server: DgemmaServer) -> None:
    """Registers the handlers."""
    server.feature(SHOWN)(_shown)
    server.feature(PARTLY_ACCEPTED)(_partly_accepted)
    server.feature(FOCUSED)(_focused)
    server.feature(NEXT_EDIT)(_next_edit)


def _shown(ls: DgemmaServer, params: Any) -> None:
    if (number := _number(params)) is not None:
        ls.session.recorder.displayed(number)


def _partly_accepted(ls: DgemmaServer, params: Any) -> None:
    number, num_units = _number(params), field(params, "acceptedLength", None)
    if number is not None and isinstance(num_units, int):
        ls.session.recorder.accept_part(number, num_units)


def _focused(ls: DgemmaServer, params: Any) -> None:
    """Does nothing: each item names its document."""


def _next_edit(ls: DgemmaServer, params: Any) -> dict[str, Any]:
    return {"edits": []}


def _number(params: Any) -> int | None:
    """Returns the number of an item's suggestion; None for an item of another server."""
    command = field(field(params, "item", None), "command", None)
    arguments = field(command, "arguments", None)
    if field(command, "command", None) != ACCEPTED or not isinstance(arguments, list | tuple):
        return None
    match cast("Sequence[object]", arguments):
        case [int() as number]:
            return number
        case _:
            return None
