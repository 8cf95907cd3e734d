"""Columns that the brackets of a document prescribe: a closer stands where its opener's line begins, a body deeper.

Pure. Works on `IndentStyle`'s columns; counts brackets and a few closing words, and parses no grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dgemma_engine.postprocess.cursor_context import CursorContext, opens_block
from dgemma_engine.postprocess.extent import closes, is_label
from dgemma_engine.postprocess.indent_style import IndentStyle, indent_of
from dgemma_engine.postprocess.lexer import OPENER_OF, Bracket, read

_CLOSERS = re.compile(r"[)\]}]+")
# Words that close or continue a block, in languages without braces around blocks.
_CLOSING_WORD = re.compile(r"\s*(?:end|else|elseif|elsif|elif|rescue|ensure|fi|done|esac)\b")
_WORD_OPENS = re.compile(
    r"\s*(?:if|unless|while|until|for|begin|case|class|module|def|else|elseif|elsif|elif|rescue|ensure"
    r"|(?:local\s+)?function)\b|.*\b(?:do|then)(?:\s*\|[^|]*\|)?\s*\Z|.*\bfunction\s*\([^()]*\)\s*\Z"
)
# Innermost brackets that an answer may close, and what is read of the text below each.
_MOST_OPEN = 100
_MOST_BODY_CHARS = 2_000
_MOST_LINE_CHARS = 1_000
_UNINDENTED_BLOCK = re.compile(r"\s*(?:namespace|extern)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBlock:
    """A bracket without its partner so far.

    Attributes:
        sign: the opening bracket.
        line: the line it stands on.
        body: the first line of text below that line; empty for none.
    """

    sign: str
    line: str
    body: str

    @property
    def is_aligned(self) -> bool:
        """Whether the line's own indentation is that of the block: the line continues no statement begun above it."""
        head = self.line.lstrip(" \t")
        return closes(head) or self.line.count(")") <= self.line.count("(")


def open_blocks(around: CursorContext) -> list[OpenBlock]:
    """Returns the brackets that are open at the cursor's line, the outermost first; empty where none are counted."""
    if not _are_counted(around):
        return []
    return [_block(around.above, bracket) for bracket in around.read_above.opening[-_MOST_OPEN:]]


def closer_column(text: str, blocks: Sequence[OpenBlock], style: IndentStyle) -> int | None:
    """Returns the column of a line that begins with closers; None where that cannot be told.

    Args:
        text: the line.
        blocks: what is open above it.
        style: turns blanks into columns.
    """
    closers = _CLOSERS.match(text.lstrip(" \t"))
    left = list(blocks)
    columns: list[int] = []
    for closer in closers.group() if closers else "":
        if not left or left[-1].sign != OPENER_OF[closer] or not left[-1].is_aligned:
            return None
        columns.append(style.columns(indent_of(left.pop().line)))
    return min(columns, default=None)


def body_column(blocks: Sequence[OpenBlock], above: str, around: CursorContext, style: IndentStyle) -> int | None:
    """Returns the least column of a statement in the innermost block; None where its author may choose.

    Args:
        blocks: what is open above the statement.
        above: the last line of text above it.
        around: the text around the cursor.
        style: turns blanks into columns.
    """
    if not blocks or around.language.indents_blocks or not around.language.has_depth:
        return None
    block = blocks[-1]
    column = style.columns(indent_of(block.line))
    if block.sign == "(" or not block.is_aligned or _UNINDENTED_BLOCK.match(block.line) or not block.body.strip():
        return None
    if opens_block(above, around.language) or is_label(above):
        return None
    least = style.columns(indent_of(above))
    if not is_label(block.body):
        least = min(least, style.columns(indent_of(block.body)))
    return least if least > column else None


def with_closers_aligned(
    cursor_line: str, lower: Sequence[str], around: CursorContext, style: IndentStyle
) -> list[str]:
    """Returns the lines with each closer that stands left of its opener's line, and outside the block, moved to it.

    Args:
        cursor_line: the cursor's line with the first line of the answer.
        lower: the answer's lines below it.
        around: text around the cursor.
        style: of the document.
    """
    lines = [cursor_line]
    base = style.columns(indent_of(cursor_line))
    above = open_blocks(around)
    for line in lower:
        column = style.columns(indent_of(line))
        target = None
        if closes(line) and _CLOSERS.match(line.lstrip(" \t")):
            target = closer_column(line, _with_answer(above, "\n".join(lines), around), style)
        elif column < base and _closes_by_word(line, lines, around, style):
            target = base
        if target is not None and column < min(base, target):
            line = style.blanks(target) + line.lstrip(" \t")
        lines.append(line)
    return lines[1:]


def _with_answer(above: Sequence[OpenBlock], said: str, around: CursorContext) -> list[OpenBlock]:
    """Returns what is open below `said`, which stands below the brackets of `above`."""
    reading = read(said, around.language)
    blocks = list(above)
    for bracket in reading.closing:
        if blocks and blocks[-1].sign == OPENER_OF[bracket.sign]:
            blocks.pop()
    return blocks + [_block(said, bracket) for bracket in reading.opening[-_MOST_OPEN:]]


def _block(text: str, bracket: Bracket) -> OpenBlock:
    start = text.rfind("\n", 0, bracket.offset) + 1
    line, _, below = text[start : bracket.offset + _MOST_BODY_CHARS].partition("\n")
    body = re.search(r"^[ \t]*\S.*$", below, re.MULTILINE)
    return OpenBlock(sign=bracket.sign, line=line, body=body.group() if body else "")


def _closes_by_word(line: str, lines: Sequence[str], around: CursorContext, style: IndentStyle) -> bool:
    """Whether a word such as `end` closes what the last line at the cursor's column opened."""
    if not _CLOSING_WORD.match(line) or around.language.indents_blocks or around.language.needs_semicolons:
        return False
    base = style.columns(indent_of(lines[0]))
    texts = [text for text in lines if text.strip()]
    opener = next((i for i in range(len(texts) - 1, -1, -1) if style.columns(indent_of(texts[i])) <= base), 0)
    return opener < len(texts) - 1 and _WORD_OPENS.match(texts[opener][:_MOST_LINE_CHARS]) is not None


def _are_counted(around: CursorContext) -> bool:
    return around.language.has_brackets and around.reaches_start and not around.read_above.inside
