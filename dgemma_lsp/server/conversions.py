"""lsprotocol <-> our types. Knows the protocol's types; holds no state."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePath, PurePosixPath

from dgemma_engine.path_style import HERE, PathStyle
from dgemma_engine.postprocess.cursor_context import normalize_newlines
from lsprotocol import types

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding
from dgemma_lsp.documents.store import MOST_URI_CHARS, Document, Edit
from dgemma_lsp.documents.uri import MOST_KEPT, Uri, folder_of
from dgemma_lsp.request import Channel, Completion, Excerpt, Request, Selected, Trigger

# The command that an editor runs when it has inserted a suggestion, with the suggestion's number.
ACCEPTED = "dgemma.accepted"

_WORD = re.compile(r"\w*")
# Of a longer word only the end is replaced.
_MOST_WORD_CHARS = 1_000
_MOST_LANGUAGE_CHARS = 100


def to_encoding(encoding: str | types.PositionEncodingKind | None) -> PositionEncoding:
    """Returns what columns count in this session; the protocol's default is UTF-16."""
    return PositionEncoding(
        encoding.value if isinstance(encoding, types.PositionEncodingKind) else encoding or "utf-16"
    )


def to_document(item: types.TextDocumentItem) -> Document:
    """Returns the snapshot that a `didOpen` carries."""
    return Document(
        uri=item.uri, version=item.version, language=str(item.language_id)[:_MOST_LANGUAGE_CHARS], text=item.text
    )


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
    cells: tuple[str, str] = ("", ""),
    encoding: PositionEncoding,
    roots: tuple[str, ...],
    trigger: Trigger,
    channel: Channel,
    deadline_ms: float,
) -> Request:
    """Returns the request for a position in a document.

    Args:
        document: the version that is open.
        position: the cursor; clamped into the text.
        cells: text of a notebook's cells before and after this one.
        encoding: what the position's column counts.
        roots: uris of the workspace's folders; the path that the model sees is relative to the innermost that holds it.
        trigger: what made the editor ask.
        channel: where the answer is shown.
        deadline_ms: milliseconds until an answer is due.
    """
    cursor = document.lines.offset(position.line, position.character, encoding)
    near = Excerpt.of(document.text, cursor, cursor)
    return Request(
        uri=document.uri,
        version=document.version,
        text=near.text,
        offset=near.offset,
        path=shown_path(document.uri, roots),
        language=document.language,
        trigger=trigger,
        channel=channel,
        deadline_ms=deadline_ms,
        above=cells[0],
        below=cells[1],
        skipped=near.skipped,
        beyond=near.beyond,
        folder=folder_of(document.uri, roots) if len(document.uri) <= MOST_URI_CHARS else "",
    )


def to_trigger(kind: types.InlineCompletionTriggerKind) -> Trigger:
    """Returns what made the editor ask."""
    return Trigger.INVOKED if kind is types.InlineCompletionTriggerKind.Invoked else Trigger.AUTOMATIC


def with_selected(
    request: Request, info: types.SelectedCompletionInfo | None, lines: LineIndex, encoding: PositionEncoding
) -> Request:
    """Returns the request with the selected entry of the menu, which an answer has to extend.

    Args:
        request: the request.
        info: the selected entry; ignored where its range does not hold the cursor on its line.
        lines: the lines of the text that was asked about.
        encoding: what columns count.
    """
    if info is None:
        return request
    places = (info.range.start, info.range.end)
    start, end = (lines.offset(one.line, one.character, encoding) - request.skipped for one in places)
    if not request.line_start <= start <= request.offset <= end <= request.line_end:
        return request
    text = normalize_newlines(info.text)
    return replace(request, selected=Selected(start=start, end=end, text=text))


def to_accepted(number: int) -> types.Command:
    """Returns the command that reports the acceptance of the suggestion of that number."""
    return types.Command(title="dgemma: suggestion accepted", command=ACCEPTED, arguments=[number])


def to_inline_item(
    completion: Completion, lines: LineIndex, encoding: PositionEncoding, *, accepted: types.Command | None
) -> types.InlineCompletionItem:
    """Returns the ghost text; it replaces its line from the start, and `accepted` runs after that."""
    return types.InlineCompletionItem(
        insert_text=completion.text, range=to_range(completion.start, completion.end, lines, encoding), command=accepted
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
    word = _word_at_end(before)
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
            new_text=text, range=to_range(completion.cursor - len(word), completion.end, lines, encoding)
        ),
    )


def to_range(start: int, end: int, lines: LineIndex, encoding: PositionEncoding) -> types.Range:
    """Returns the range from one offset to another."""
    return types.Range(*(types.Position(*lines.position(offset, encoding)) for offset in (start, end)))


@lru_cache(MOST_KEPT)
def shown_path(uri: str, roots: tuple[str, ...], style: PathStyle = HERE) -> str:
    """Returns the path that the model sees of a document: relative to the folder that holds it, else its name.

    Args:
        uri: the document's.
        roots: uris of the workspace's folders.
        style: of the system's paths.
    """
    spelled = (uri[-MOST_URI_CHARS:], *(root for root in roots if len(root) <= MOST_URI_CHARS))
    path, *folders = (_pure_path(Uri.parse(style.one_spelling(one)), style) for one in spelled)
    holding = [folder for folder in folders if path.is_relative_to(folder)]
    # Workspace folders may be nested.
    innermost = max(holding, key=lambda folder: len(folder.parts), default=path.parent)
    # The model reads UTF-8, which has no surrogates.
    return path.relative_to(innermost).as_posix().encode("utf-8", "replace").decode("utf-8")


def _pure_path(parsed: Uri, style: PathStyle) -> PurePath:
    """Returns the path of a URI as the system compares it, also of a URI that names no file."""
    if style is PathStyle.POSIX:
        return PurePosixPath(parsed.path)
    return style.pure(style.native(f"//{parsed.host}{parsed.path}" if parsed.host else parsed.path) or parsed.path)


def to_root(params: types.InitializeParams) -> str | None:
    """Returns the folder that an editor starts in, in a spelling that pygls can read; None where there is none."""
    if params.root_uri is None:
        return Uri.of_path(params.root_path).spelled if params.root_path else None
    return Uri.parse(params.root_uri).spelled


def to_roots(folders: Iterable[types.WorkspaceFolder], root: str | None) -> tuple[str, ...]:
    """Returns the uris of the workspace's folders.

    Args:
        folders: the folders that the editor has open; may be empty.
        root: used where there are none.
    """
    return tuple(folder.uri for folder in folders) or tuple(filter(None, [root]))


def _word_at_end(text: str) -> str:
    """Returns the word that a text ends with, of a longer one the last 1,000 characters; read from the end."""
    found = _WORD.match(text[: -_MOST_WORD_CHARS - 1 : -1])
    return text[len(text) - found.end() :] if found else ""
