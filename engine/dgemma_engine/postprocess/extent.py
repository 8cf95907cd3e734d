"""Where the cursor's block ends: cuts an answer before what leaves it. Pure."""

from __future__ import annotations

import re

from dgemma_engine.postprocess.brackets import closes_what_is_open
from dgemma_engine.postprocess.cursor_context import CursorContext

_LABEL = re.compile(r"\s*(?:case\b|default\b|public\b|private\b|protected\b|#)")
_FENCE = re.compile(r"\s*(```|~~~)")


def cut_to_block(middle: str, around: CursorContext) -> str:
    """Cuts before the first line that leaves the cursor's block, or that begins another paragraph at its level.

    After a line that opens a block (`def f():`), a line with the same indentation has left the block, unless it closes
    it. A closing bracket further out stays where the document has none.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
    """
    middle = cut_outside(middle, around)
    if _FENCE.match(around.before):
        return middle
    lines = middle.split("\n")
    base = columns(around.before)
    first_body = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    for index in range(first_body + 1, len(lines)):
        line = lines[index]
        if not line.strip() or (columns(line) < base and closes_what_is_open(line, "\n".join(lines[:index]), around)):
            continue
        if columns(line) <= base and not lines[index - 1].strip():
            return "\n".join(lines[:index])
    return middle


def cut_outside(middle: str, around: CursorContext, *, least_column: int = -1) -> str:
    """Cuts before the first line that leaves the cursor's block; paragraphs at its level stay.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
        least_column: least indentation of lines below the first; -1 is that of the block.
    """
    lines = middle.split("\n")
    if fence := _FENCE.match(around.before):
        end = next((index for index, line in enumerate(lines) if line.strip() == fence[1]), len(lines) - 1)
        return "\n".join(lines[: end + 1])
    base = columns(around.before)
    is_behind_text = bool(around.before.strip())
    for index in range(1, len(lines)):
        line = lines[index]
        depth = columns(line)
        if not line.strip() or 0 <= least_column <= depth:
            continue
        is_item = around.language.indents_blocks and line.lstrip().startswith("- ")
        is_item = is_item or (around.before.rstrip().endswith("{") and is_label(line))
        outside = depth < base or (is_behind_text and depth == base and not closes(line) and not is_item)
        if depth < base and closes_what_is_open(line, "\n".join(lines[:index]), around):
            continue
        if outside:
            return "\n".join(lines[:index])
    return middle


def columns(line: str) -> int:
    """Returns the indentation of a line in columns, tabs to the next multiple of eight."""
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return len(indent.expandtabs(8))


def closes(line: str) -> bool:
    """Whether a line begins with a token that ends a block."""
    return line.lstrip().startswith((")", "]", "}", "</"))


def is_label(line: str) -> bool:
    """Whether a line stands, in the style of many, as deep as the opener of the block that it belongs to."""
    return _LABEL.match(line) is not None
