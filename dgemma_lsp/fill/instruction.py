"""The description in a selection: the comment or docstring that it begins with, or that follows a block's first line.

Pure. Reads the first lines of a text only.
"""

from __future__ import annotations

import re

from dgemma_engine.postprocess.cursor_context import opens_block
from dgemma_engine.postprocess.lexer import Language, language_named

_MOST_LINES = 60
_DOCSTRING = re.compile(r"[rRuUbB]{0,2}(?P<quote>\"\"\"|''')")
_SHORT_DOCSTRING = re.compile(r"[rRuUbB]?(?:\"[^\"\n]*\"|'[^'\n]*')[ \t]*\Z")
_WORD = re.compile(r"[^\W\d_]{3,}")
# Comments for tools, which describe nothing.
_DIRECTIVE = re.compile(
    r"\W*(?:-\*-|noqa\b|type:|pyright:|pylint:|mypy:|ruff:|fmt:|isort:|pragma\b|region\b|endregion\b|eslint|@ts-"
    r"|prettier-|clang-format|nolint|vim:|coding[:=]|SPDX-|Copyright\b)|!|/\*!"
)


def description_span(selected: str, language_id: str) -> tuple[int, int] | None:
    """Returns where the description's first line starts and where the description ends; None without one.

    The description is the comment or docstring at the start of the text, or below a line that opens a block. Comments
    without a word, and those for tools, are none.

    Args:
        selected: text that begins at the first character of a line that is no blank.
        language_id: as LSP spells it.
    """
    language = language_named(language_id)
    is_due, offset = True, 0
    for _ in range(_MOST_LINES):
        end = _line_end(selected, offset)
        line = selected[offset:end]
        if line.strip():
            close = _described_to(selected, offset, language, language_id) if is_due else None
            if close is not None:
                return offset, close
            if not _is_comment(line, language):
                is_due = opens_block(line, language)
        if end >= len(selected):
            return None
        offset = end + (2 if selected.startswith("\r\n", end) else 1)
    return None


def _described_to(text: str, start: int, language: Language, language_id: str) -> int | None:
    """Returns where the description ends that begins on the line at `start`; None if none does."""
    line = text[start : _line_end(text, start)]
    first = start + len(line) - len(line.lstrip(" \t"))
    if language_id == "python" and (end := _docstring_to(text, first)) is not None:
        return end if _WORD.search(text, first, end) else None
    if language.block_comment:
        begin, close = language.block_comment
        if block := re.compile(rf"{begin}[\s\S]*?{close}").match(text, first):
            rest = text[block.end() : _line_end(text, block.end())]
            is_said = _WORD.search(block.group()) and not _DIRECTIVE.match(block.group())
            return block.end() if is_said and not rest.strip() else None
    end, is_said = None, False
    while _is_comment(line, language):
        end = start + len(line.rstrip())
        is_said = is_said or (bool(_WORD.search(line)) and not _DIRECTIVE.match(_bare(line, language)))
        behind = start + len(line)
        if behind >= len(text):
            break
        start = behind + (2 if text.startswith("\r\n", behind) else 1)
        line = text[start : _line_end(text, start)]
    return end if is_said else None


def _docstring_to(text: str, first: int) -> int | None:
    """Returns where the string statement at `first` ends, if nothing follows it on its line."""
    if opening := _DOCSTRING.match(text, first):
        close = text.find(opening["quote"], opening.end())
        end = close + len(opening["quote"])
        return end if close >= 0 and not text[end : _line_end(text, end)].strip() else None
    line = text[first : _line_end(text, first)]
    return first + len(line.rstrip()) if _SHORT_DOCSTRING.match(line) else None


def _is_comment(line: str, language: Language) -> bool:
    return bool(language.comment) and line.lstrip(" \t").startswith(language.comment)


def _bare(line: str, language: Language) -> str:
    return line.strip().removeprefix(language.comment).strip()


def _line_end(text: str, offset: int) -> int:
    ends = [end for end in (text.find(mark, offset) for mark in "\r\n") if end >= 0]
    return min(ends, default=len(text))
