"""lsprotocol and decoded JSON <-> questions and answers of fills. Holds no state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lsprotocol import types
from lsprotocol.validators import UINTEGER_MAX_VALUE

from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import Document
from dgemma_lsp.fill.service import FillAnswer, FillQuestion
from dgemma_lsp.fill.target import FillKind
from dgemma_lsp.server.conversions import to_range

# The command that fills a selection, and the kind of the code actions that run it.
FILL = "dgemma.fill"
FILL_ACTION = "refactor.rewrite.fill"

_MISSING = object()


def to_fill_question(params: object) -> FillQuestion:
    """Returns the question of `dgemma/fill` or of the command `dgemma.fill`; other fields are ignored.

    Args:
        params: decoded JSON, as mappings or as objects with attributes.

    Raises:
        ValueError: a field is missing or wrong; the message names it.
    """
    document, span = field(params, "textDocument"), field(params, "range")
    uri, version, kind = field(document, "uri"), to_version(field(document, "version", None)), field(params, "kind")
    if not isinstance(uri, str):
        raise ValueError("textDocument must have a text as uri")
    if kind not in [*FillKind]:
        raise ValueError(f"kind must be one of {', '.join(FillKind)}")
    start, end = (to_place(field(span, name), f"range.{name}") for name in ("start", "end"))
    return FillQuestion(uri=uri, version=version, span=(start, end), kind=FillKind(kind))


def to_progress_token(params: object) -> int | str | None:
    """Returns the work-done token of a request; None without one."""
    token = field(params, "workDoneToken", None)
    return token if isinstance(token, int | str) else None


def to_fill_result(question: FillQuestion, answer: FillAnswer, encoding: PositionEncoding) -> dict[str, Any]:
    """Returns the answer to `dgemma/fill`: candidates with range and version, or why there are none."""
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
    """Returns the range that a candidate replaces; the range of the question where the document is not open."""
    if answer.document is not None:
        return to_range(answer.start, answer.end, answer.document.lines, encoding)
    (line, column), (end_line, end_column) = question.span
    return types.Range(
        start=types.Position(line=line, character=column), end=types.Position(line=end_line, character=end_column)
    )


def to_fill_edit(question: FillQuestion, answer: FillAnswer, encoding: PositionEncoding) -> types.WorkspaceEdit:
    """Returns one edit that writes the best candidate, valid for one version of the document only."""
    assert answer.document is not None, "only an open document has candidates"
    edit = types.TextEdit(range=to_fill_range(question, answer, encoding), new_text=answer.candidates[0].new_text)
    document = types.OptionalVersionedTextDocumentIdentifier(uri=question.uri, version=answer.document.version)
    return types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(text_document=document, edits=[edit])])


def to_kinds(kinds: Sequence[str | types.CodeActionKind]) -> list[str]:
    """Returns the kinds of code actions that an editor wants, as the protocol spells them."""
    return [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in kinds]


def to_fill_action(title: str, kind: FillKind, document: Document, span: types.Range) -> types.CodeAction:
    """Returns a code action; the engine is asked only when the user chooses it."""
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


def field(value: object, name: str, default: object = _MISSING) -> object:
    """Returns a field of decoded JSON; pygls makes objects of the parameters of methods that it does not know."""
    if isinstance(value, Mapping):
        found = cast("Mapping[str, object]", value).get(name, default)
    else:
        found = getattr(value, name, default)
    if found is _MISSING:
        raise ValueError(f"{name} is missing")
    return found


def to_place(position: object, name: str) -> tuple[int, int]:
    """Returns line and character of decoded JSON; numbers that are larger than the protocol's become its largest.

    Raises:
        ValueError: one of them is missing or no whole number from 0; the message begins with `name`.
    """
    line, column = (_to_whole(field(position, part)) for part in ("line", "character"))
    if line is None or column is None or min(line, column) < 0:
        raise ValueError(f"{name} must have whole numbers from 0 as line and character")
    return min(line, UINTEGER_MAX_VALUE), min(column, UINTEGER_MAX_VALUE)


def to_version(version: object) -> int | None:
    """Returns the version of a document, None for the one that is open.

    Raises:
        ValueError: it is no whole number.
    """
    if version is not None and (version := _to_whole(version)) is None:
        raise ValueError("version must be a whole number or null")
    return version


def _to_whole(value: object) -> int | None:
    """Returns a whole number, which may be written with a fraction of zero; None for anything else."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else UINTEGER_MAX_VALUE if value == math.inf else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
