"""Infill -> FillCandidates: texts that may replace a selection, best first; the text around it stays.

Pure. The request is that of a completion where the selection was. The engine has shaped the texts; here they get the
document's line ends, and those that only repeat the selection or comment on it are dropped: the engine does not get
the text that is replaced.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import accumulate

from dgemma_engine.postprocess.cursor_context import extent_of, near_end, normalize_newlines
from dgemma_engine.postprocess.extent import closes, columns
from dgemma_engine.postprocess.lexer import Language, language_named, lines_inside
from dgemma_engine.protocol.messages import Extent, Infill

from dgemma_lsp.documents.store import Document
from dgemma_lsp.fill.target import FillTarget
from dgemma_lsp.request import Channel, Excerpt, Request, Trigger

_MOST_CANDIDATES = 5
_LABEL_CHARS = 60
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class FillCandidate:
    """A text to write over the hole.

    Attributes:
        new_text: with the document's line ends.
        label: its first line and how many follow, for a list to choose from.
        score: its score in the ranking, 0 to 1.
    """

    new_text: str
    label: str
    score: float


def fill_request(
    document: Document,
    target: FillTarget,
    *,
    path: str,
    deadline_ms: float,
    cells: tuple[str, str] = ("", ""),
    folder: str = "",
) -> Request:
    """Returns the request of a fill: the document without the text that is replaced, the cursor in its place.

    Args:
        document: the version that is open.
        target: the range to replace.
        path: the file's path for the model to see.
        deadline_ms: milliseconds until an answer is due.
        cells: text of a notebook's cells before and after this one.
        folder: see `Request.folder`.
    """
    near = Excerpt.of(document.text, target.start, target.end, between=target.shown)
    request = Request(
        uri=document.uri,
        version=document.version,
        text=near.text,
        offset=near.offset,
        path=path,
        language=document.language,
        trigger=Trigger.INVOKED,
        channel=Channel.FILL,
        deadline_ms=deadline_ms,
        above=cells[0],
        below=cells[1],
        skipped=near.skipped,
        beyond=near.beyond,
        folder=folder,
    )
    replaced = document.text[target.start : target.end]
    return replace(request, extent=_extent(request, replaced), least_column=_least_column(request, replaced))


def fill_candidates(request: Request, target: FillTarget, replaced: str, infill: Infill) -> tuple[FillCandidate, ...]:
    """Returns what may be written over the hole, best first: none twice, none that changes nothing, no mere comment.

    Args:
        request: what `fill_request` made.
        target: the range to replace.
        replaced: the text that is replaced.
        infill: the engine's answer.
    """
    language = language_named(request.language)
    line_end = _line_end_near(request, target, replaced)
    scores = {infill.text: infill.score} if infill.text else {}
    scores |= {candidate.text: candidate.score for candidate in infill.candidates}
    found: dict[str, FillCandidate] = {}
    for written, score in scores.items():
        new_text = (target.begins + written).replace("\n", line_end)
        is_mere_comment = _is_comment(written, language) and not _is_comment(replaced, language)
        if not is_mere_comment and new_text != replaced and new_text not in found:
            found[new_text] = FillCandidate(new_text=new_text, label=_label(written), score=score)
    return tuple(found.values())[:_MOST_CANDIDATES]


def _extent(request: Request, replaced: str) -> Extent:
    """Returns the extent of the new text: several lines where several are replaced, else that of ghost text."""
    return Extent.BLOCK if _LINE_END.search(replaced) else extent_of(request.before, request.rest, request.language)


def _least_column(request: Request, replaced: str) -> int:
    """Returns the least indentation of the new text's lines, in columns; -1 for that of the block it begins in.

    It is that of the replaced text where that ends with less indentation than it begins. Comments, directives, lines
    that close a bracket, and lines inside a string may have any indentation and do not count.
    """
    replaced, language = normalize_newlines(replaced), language_named(request.language)
    own = columns(request.before) + bool(request.before.strip())
    lines = replaced.split("\n")
    starts = accumulate((len(line) + 1 for line in lines), initial=0)
    further_out = sorted(
        (columns(line), start)
        for line, start in [*zip(lines, starts, strict=False)][1:]
        if line.strip() and columns(line) < own and not closes(line) and not _stands_anywhere(line, language)
    )
    before = near_end(request.before)
    inside = lines_inside(before + replaced, language) if further_out else []
    for column, start in further_out:
        at = len(before) + start
        held = bisect_left(inside, (at, 0)) - 1
        if held < 0 or at >= inside[held][1]:
            return column
    return -1


def _stands_anywhere(line: str, language: Language) -> bool:
    """Whether a line is a comment, or a directive of a preprocessor."""
    text = line.lstrip()
    return bool(language.comment and text.startswith(language.comment)) or (language.has_brackets and text[0] == "#")


def _is_comment(text: str, language: Language) -> bool:
    """Whether a text has nothing but comments of one line each."""
    sign, lines = language.comment, [line.strip() for line in _LINE_END.split(text) if line.strip()]
    return bool(sign and lines) and all(line.startswith(sign) for line in lines)


def _line_end_near(request: Request, target: FillTarget, replaced: str) -> str:
    """Returns how the line above the hole ends; the first of the hole or after it where there is none above."""
    start = request.offset - len(target.shown)
    last = max(request.text.rfind(mark, 0, start) for mark in "\r\n")
    above = request.text[max(0, last - 1) : last + 1]
    for text in (above, replaced, request.text[request.offset :]):
        if found := _LINE_END.search(text):
            return found.group()
    return "\n"


def _label(written: str) -> str:
    lines = [line for line in written.split("\n") if line.strip()]
    first = lines[0].strip()
    first = first if len(first) <= _LABEL_CHARS else f"{first[: _LABEL_CHARS - 1]}\N{HORIZONTAL ELLIPSIS}"
    return first if len(lines) == 1 else f"{first} (+{len(lines) - 1} lines)"
