"""lsprotocol <-> our types. Knows the protocol's types; holds no state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, cast

from lsprotocol import types

from dgemma_lsp.documents.positions import LineIndex, PositionEncoding
from dgemma_lsp.documents.store import MOST_URI_CHARS, Document, Edit
from dgemma_lsp.documents.uri import Uri
from dgemma_lsp.fill.service import FillAnswer, FillQuestion
from dgemma_lsp.fill.target import FillKind
from dgemma_lsp.postprocess.pipeline import Completion
from dgemma_lsp.request import Channel, Near, Request, Selected, Trigger

# The command that an editor runs when it has inserted a suggestion, with the suggestion's number.
ACCEPTED = "dgemma.accepted"
# The command that fills a selection, and the kind of the code actions that run it.
FILL = "dgemma.fill"
FILL_ACTION = "refactor.rewrite.fill"

_MISSING = object()

_WORD = re.compile(r"\w*")
# A longer word is replaced from a place in it.
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
    roots: Sequence[str],
    trigger: Trigger,
    channel: Channel,
    deadline_ms: float,
) -> Request:
    """Returns the question that an editor puts with a position.

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
    near = Near.of(document.text, cursor, cursor)
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
    places = (info.range.start, info.range.end)
    start, end = (lines.offset(one.line, one.character, encoding) - request.skipped for one in places)
    if not request.line_start <= start <= request.offset <= end <= request.line_end:
        return request
    text = info.text.replace("\r\n", "\n").replace("\r", "\n")
    return replace(request, selected=Selected(start=start, end=end, text=text))


def to_accepted(number: int) -> types.Command:
    """Returns what the editor runs when it has inserted the suggestion of that number."""
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
            new_text=text, range=_range(completion.cursor - len(word), completion.end, lines, encoding)
        ),
    )


def to_fill_question(params: object) -> FillQuestion:
    """Returns what `dgemma/fill` or the command of its name asks; everything but these fields is left alone.

    Args:
        params: decoded JSON, as mappings or as objects with attributes.

    Raises:
        ValueError: a field is missing or wrong; the message names it.
    """
    document, span = _field(params, "textDocument"), _field(params, "range")
    uri, version, kind = _field(document, "uri"), _field(document, "version", None), _field(params, "kind")
    if not isinstance(uri, str) or not isinstance(version, int | None):
        raise ValueError("textDocument must have a text as uri and a whole number or null as version")
    if kind not in [*FillKind]:
        raise ValueError(f"kind must be one of {', '.join(FillKind)}")
    start, end = (_place(_field(span, name), name) for name in ("start", "end"))
    return FillQuestion(uri=uri, version=version, span=(start, end), kind=FillKind(kind))


def to_progress_token(params: object) -> int | str | None:
    """Returns the token under which an editor wants to be told the progress of its request, if it does."""
    token = _field(params, "workDoneToken", None)
    return token if isinstance(token, int | str) else None


def to_fill_result(question: FillQuestion, answer: FillAnswer, encoding: PositionEncoding) -> dict[str, Any]:
    """Returns the answer to `dgemma/fill`: what replaces which range of which version, or why nothing does."""
    return {
        "uri": question.uri,
        "version": answer.document.version if answer.document else question.version,
        "range": to_fill_range(question, answer, encoding),
        "candidates": [
            {"newText": candidate.new_text, "label": candidate.label, "score": candidate.score}
            for candidate in answer.candidates
        ],
        "message": answer.message,
    }


def to_fill_range(question: FillQuestion, answer: FillAnswer, encoding: PositionEncoding) -> types.Range:
    """Returns what a candidate replaces; what was asked about where the document is not open."""
    if answer.document is not None:
        return _range(answer.start, answer.end, answer.document.lines, encoding)
    (line, column), (end_line, end_column) = question.span
    return types.Range(
        start=types.Position(line=line, character=column), end=types.Position(line=end_line, character=end_column)
    )


def to_fill_edit(question: FillQuestion, answer: FillAnswer, encoding: PositionEncoding) -> types.WorkspaceEdit:
    """Returns one edit that writes the best candidate, good for one version of the document only."""
    assert answer.document is not None, "only an open document has candidates"
    edit = types.TextEdit(range=to_fill_range(question, answer, encoding), new_text=answer.candidates[0].new_text)
    document = types.OptionalVersionedTextDocumentIdentifier(uri=question.uri, version=answer.document.version)
    return types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(text_document=document, edits=[edit])])


def to_kinds(kinds: Sequence[str | types.CodeActionKind]) -> list[str]:
    """Returns the kinds of code actions that an editor wants, as the protocol spells them."""
    return [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in kinds]


def to_fill_action(title: str, kind: FillKind, document: Document, span: types.Range) -> types.CodeAction:
    """Returns a code action that asks for a fill when it is chosen, and costs nothing before."""
    argument = {
        "textDocument": {"uri": document.uri, "version": document.version},
        "range": {
            "start": {"line": span.start.line, "character": span.start.character},
            "end": {"line": span.end.line, "character": span.end.character},
        },
        "kind": kind.value,
    }
    command = types.Command(title=title, command=FILL, arguments=[argument])
    return types.CodeAction(title=title, kind=FILL_ACTION, command=command)


def to_position(offset: int, lines: LineIndex, encoding: PositionEncoding) -> types.Position:
    """Returns where an offset is."""
    line, column = lines.position(offset, encoding)
    return types.Position(line=line, character=column)


def _word_at_end(text: str) -> str:
    """Returns the word that a text ends with, of a longer one the last 1,000 characters; read from the end."""
    found = _WORD.match(text[: -_MOST_WORD_CHARS - 1 : -1])
    return text[len(text) - found.end() :] if found else ""


def _range(start: int, end: int, lines: LineIndex, encoding: PositionEncoding) -> types.Range:
    return types.Range(start=to_position(start, lines, encoding), end=to_position(end, lines, encoding))


def shown_path(uri: str, roots: Sequence[str]) -> str:
    """Returns the path that the model sees of a document: relative to the folder that holds it, else its name.

    Args:
        uri: the document's.
        roots: uris of the workspace's folders.
    """
    spelled = (uri[-MOST_URI_CHARS:], *(root for root in roots if len(root) <= MOST_URI_CHARS))
    path, *folders = (PurePosixPath(Uri.parse(one).path) for one in spelled)
    holding = [folder for folder in folders if path.is_relative_to(folder)]
    # Folders of a workspace may lie inside each other.
    innermost = max(holding, key=lambda folder: len(folder.parts), default=path.parent)
    # The model reads UTF-8, which has no surrogates.
    return str(path.relative_to(innermost)).encode("utf-8", "replace").decode("utf-8")


def to_root(params: types.InitializeParams) -> str | None:
    """Returns the folder that an editor starts in, in a spelling that pygls can read; None where there is none."""
    if params.root_uri is None:
        return Uri.of_path(params.root_path).spelled if params.root_path else None
    return Uri.parse(params.root_uri).spelled


def to_roots(folders: Iterable[types.WorkspaceFolder], root: str | None) -> tuple[str, ...]:
    """Returns the uris of the workspace's folders.

    Args:
        folders: what the editor has open; may be empty.
        root: stands in for them.
    """
    return tuple(folder.uri for folder in folders) or tuple(filter(None, [root]))


def _field(value: object, name: str, default: object = _MISSING) -> object:
    """Returns a field of decoded JSON; pygls makes objects of the parameters of methods that it does not know."""
    if isinstance(value, Mapping):
        found = cast("Mapping[str, object]", value).get(name, default)
    else:
        found = getattr(value, name, default)
    if found is _MISSING:
        raise ValueError(f"{name} is missing")
    return found


def _place(position: object, name: str) -> tuple[int, int]:
    line, column = _field(position, "line"), _field(position, "character")
    if not isinstance(line, int) or not isinstance(column, int) or min(line, column) < 0:
        raise ValueError(f"range.{name} must have whole numbers from 0 as line and character")
    return line, column
