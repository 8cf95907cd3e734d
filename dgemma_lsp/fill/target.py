"""What a fill replaces: a selection and the kind of fill -> the range to replace, or why there is none.

Pure. The range ends before a line end wherever whole lines were selected, and begins after their indentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dgemma_lsp.fill.instruction import description_span
from dgemma_lsp.fill.placeholder import placeholder_at

# Longer texts are refused: positions in them are counted again at every edit.
MOST_CHARS = 4_000_000
# More text than one fill could replace.
MOST_SELECTED_CHARS = 60_000
# A line is searched for its start over so many characters; a longer one counts as starting there.
_MOST_LINE_CHARS = 10_000


class FillKind(StrEnum):
    """What to do with a selection."""

    SELECTION = "selection"
    DESCRIPTION = "description"
    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillTarget:
    """The range to replace.

    Attributes:
        start: offset of the first character that is replaced, in code points.
        end: offset after the last.
        shown: text that the model reads between the text before `start` and the hole.
        begins: text that is written before the model's.
    """

    start: int
    end: int
    shown: str = ""
    begins: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there is nothing to apply, and what to do: one sentence for a person."""

    message: str


def fill_target(text: str, start: int, end: int, *, kind: FillKind, language_id: str) -> FillTarget | Refusal:
    """Returns what a fill replaces.

    Args:
        text: a whole document.
        start: offset of the selection, in code points.
        end: offset after it; not before `start`.
        kind: what is wanted.
        language_id: as LSP spells it.
    """
    if len(text) > MOST_CHARS:
        return Refusal(message=f"this file is too long to fill in: {len(text):,} characters, at most {MOST_CHARS:,}")
    if end - start > MOST_SELECTED_CHARS:
        chars = f"{end - start:,} characters, at most {MOST_SELECTED_CHARS:,}"
        return Refusal(message=f"the selection is too long ({chars}); select less")
    if kind is FillKind.PLACEHOLDER:
        return _placeholder(text, start, end, language_id)
    if start == end:
        return Refusal(message="nothing is selected; select the text to replace, or put the cursor on a placeholder")
    start, end = _trimmed(text, start, end)
    if kind is FillKind.SELECTION:
        return FillTarget(start=start, end=end)
    if (described := _described(text, start, end, language_id)) is None:
        return Refusal(message="the selection has no comment or docstring to fill from; use Fill selection")
    return described


def fill_kinds(text: str, start: int, end: int, *, language_id: str) -> tuple[FillKind, ...]:
    """Returns what a fill could do with a selection; fast for any text, since it runs at every move of the cursor.

    Args:
        text: a whole document.
        start: offset of the selection, in code points.
        end: offset after it; not before `start`.
        language_id: as LSP spells it.
    """
    if len(text) > MOST_CHARS or end - start > MOST_SELECTED_CHARS:
        return ()
    if start == end:
        return (FillKind.PLACEHOLDER,) if placeholder_at(text, start, language_id) else ()
    trimmed = _trimmed(text, start, end)
    is_described = _described(text, *trimmed, language_id) is not None
    return (FillKind.SELECTION, FillKind.DESCRIPTION) if is_described else (FillKind.SELECTION,)


def _placeholder(text: str, start: int, end: int, language_id: str) -> FillTarget | Refusal:
    first, last = _trimmed(text, start, end) if start < end else (start, end)
    found = placeholder_at(text, first, language_id)
    if found is None or last > found.end:
        return Refusal(message="the cursor is not on a placeholder (pass, ..., a TODO comment); select text instead")
    return FillTarget(start=found.start, end=found.end, shown=found.says)


def _described(text: str, start: int, end: int, language_id: str) -> FillTarget | None:
    span = description_span(text[start:end], language_id)
    if text[_line_start(text, start) : start].strip(" \t") or span is None:
        return None
    rest = text[start + span[1] : end]
    if rest.strip():
        return FillTarget(start=end - len(rest.lstrip()), end=end)
    # Only a description is selected: the code goes on a new line with the same indentation.
    line = text[_line_start(text, start + span[0]) : start + span[1]]
    begins = "\n" + line[: len(line) - len(line.lstrip(" \t"))]
    return FillTarget(start=start + span[1], end=start + span[1], shown=begins, begins=begins)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns a selection without the blanks at its ends; of blanks alone the part that may be replaced."""
    selected = text[start:end]
    if selected.strip():
        return start + len(selected) - len(selected.lstrip()), end - (len(selected) - len(selected.rstrip()))
    if text[_line_start(text, start) : start].strip(" \t"):
        return start, start + len(selected) - len(selected.lstrip(" \t"))
    start += len(selected) - len(selected.lstrip(" \t"))
    for line_end in ("\r\n", "\n", "\r"):
        if end - len(line_end) >= start and text.startswith(line_end, end - len(line_end)):
            return start, end - len(line_end)
    return start, max(start, end)


def _line_start(text: str, offset: int) -> int:
    start = max(0, offset - _MOST_LINE_CHARS)
    return max(text.rfind("\n", start, offset), text.rfind("\r", start, offset), start - 1) + 1
