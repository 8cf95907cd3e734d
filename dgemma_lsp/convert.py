"""lsprotocol <-> our types. With `server`, the only module that knows the protocol's types; holds no state."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from lsprotocol import types

from dgemma_lsp.completion import Completion
from dgemma_lsp.documents import Document, Edit
from dgemma_lsp.positions import LineIndex, PositionEncoding
from dgemma_lsp.request import Channel, Request, Selected, Trigger

# The command that an editor runs when it has inserted a suggestion, with the suggestion's number.
ACCEPTED = "dgemma.accepted"

_WORD_END = re.compile(r"\w*\Z")


def to_encoding(encoding: str | types.PositionEncodingKind | None) -> PositionEncoding:
    """Returns what columns count in this session; the protocol's default is UTF-16."""
    return PositionEncoding(
        encoding.value if isinstance(encoding, types.PositionEncodingKind) else encoding or "utf-16"
    )


def to_document(item: types.TextDocumentItem) -> Document:
    """Returns the snapshot that a `didOpen` carries."""
    return Document(uri=item.uri, version=item.version, language=str(item.language_id), text=item.text)


def to_edit(change: types.TextDocumentContentChangeEvent) -> Edit:
    """Returns one edit of a `didChange`."""
    if isinstance(change, types.TextDocumentContentChangeWholeDocument):
        return Edit(span=None, text=change.text)
    start, end = change.range.start, change.range.end
    return Edit(span=((start.line, start.character), (end.line, end.character)), text=change.text)


def to_request(
    document: Document,
    position: types.Position,
    *,
    encoding: PositionEncoding,
    roots: Sequence[str],
    trigger: Trigger,
    channel: Channel,
    deadline_ms: float,
) -> Request:
    """Returns the question that an editor puts with a position.

    Args:
        document: the version that is open.
        position: the cursor; clamped into the text.
        encoding: what the position's column counts.
        roots: uris of the workspace's folders; the path that the model sees is relative to the one that holds it.
        trigger: what made the editor ask.
        channel: where the answer is shown.
        deadline_ms: milliseconds until an answer is due.
    """
    return Request(
        uri=document.uri,
        version=document.version,
        text=document.text,
        offset=document.lines.offset(position.line, position.character, encoding),
        path=_shown_path(document.uri, roots),
        language=document.language,
        trigger=trigger,
        channel=channel,
        deadline_ms=deadline_ms,
    )


def to_trigger(kind: types.InlineCompletionTriggerKind) -> Trigger:
    """Returns what made the editor ask."""
    return Trigger.INVOKED if kind is types.InlineCompletionTriggerKind.Invoked else Trigger.AUTOMATIC


def with_selected(
    request: Request, info: types.SelectedCompletionInfo | None, lines: LineIndex, encoding: PositionEncoding
) -> Request:
    """Returns the question with what an answer has to extend.

    Args:
        request: the question.
        info: what is selected in the completion menu; ignored where its range does not hold the cursor on its line.
        lines: the lines of the text that was asked about.
        encoding: what columns count.
    """
    if info is None:
        return request
    start, end = (lines.offset(place.line, place.character, encoding) for place in (info.range.start, info.range.end))
    if not request.line_start <= start <= request.offset <= end <= request.line_end:
        return request
    text = info.text.replace("\r\n", "\n").replace("\r", "\n")
    return replace(request, selected=Selected(start=start, end=end, text=text))


def to_accepted(number: int | None) -> types.Command | None:
    """Returns what the editor runs when it has inserted the suggestion of that number; None for no number."""
    if number is None:
        return None
    return types.Command(title="dgemma: suggestion accepted", command=ACCEPTED, arguments=[number])


def to_inline_item(
    completion: Completion, lines: LineIndex, encoding: PositionEncoding, *, accepted: types.Command | None
) -> types.InlineCompletionItem:
    """Returns the ghost text: one line is replaced from its start, and `accepted` is run then."""
    return types.InlineCompletionItem(
        insert_text=completion.text, range=_range(completion.start, completion.end, lines, encoding), command=accepted
    )


def to_menu_item(
    completion: Completion,
    before: str,
    lines: LineIndex,
    encoding: PositionEncoding,
    *,
    accepted: types.Command | None,
) -> types.CompletionItem:
    """Returns the entry of a completion menu: it replaces the word at the cursor too, because menus filter by that.

    Args:
        completion: what to offer.
        before: the line left of the cursor.
        lines: the lines of the text that it was made for.
        encoding: what columns count.
        accepted: run when the editor has inserted it.
    """
    found = _WORD_END.search(before)
    word = found.group() if found else ""
    text = word + completion.inserted
    label = next(line.strip() for line in text.split("\n") if line.strip())
    return types.CompletionItem(
        label=label,
        kind=types.CompletionItemKind.Text,
        detail="dgemma",
        preselect=True,
        command=accepted,
        filter_text=text.split("\n", maxsplit=1)[0] or None,
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(
            new_text=text, range=_range(completion.cursor - len(word), completion.end, lines, encoding)
        ),
    )


def to_position(offset: int, lines: LineIndex, encoding: PositionEncoding) -> types.Position:
    """Returns where an offset is."""
    line, column = lines.position(offset, encoding)
    return types.Position(line=line, character=column)


def _range(start: int, end: int, lines: LineIndex, encoding: PositionEncoding) -> types.Range:
    return types.Range(start=to_position(start, lines, encoding), end=to_position(end, lines, encoding))


def _shown_path(uri: str, roots: Sequence[str]) -> str:
    path = PurePosixPath(unquote(urlsplit(uri).path))
    for root in roots:
        folder = PurePosixPath(unquote(urlsplit(root).path))
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name
