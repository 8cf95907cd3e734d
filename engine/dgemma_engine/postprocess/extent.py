"""The extent of an answer: to the end of the cursor's line or over several, and where the cursor's block ends.

Pure. `extent_of` decides it before the engine is asked, `cut_to_block` and `cut_outside` enforce it on the answer.
"""

from __future__ import annotations

import re

from dgemma_engine.postprocess.brackets import closes_what_is_open
from dgemma_engine.postprocess.cursor_context import CursorContext, near_end, near_start
from dgemma_engine.postprocess.lexer import Language, language_named, read
from dgemma_engine.protocol.messages import Extent

_CLOSING = re.compile(r"\s*+\}[)\]}]*+[;,]?\s*+\Z")
_LABEL = re.compile(r"\s*(?:case\b|default\b|public\b|private\b|protected\b|#)")
_FENCE = re.compile(r"\s*(```|~~~)")


def extent_of(before: str, rest: str, language_id: str) -> Extent:
    """Returns how far the answer may reach.

    Several lines on a blank line, after what opens a block, and between the two brackets of an empty one, `{|}`;
    anywhere else one line.

    Args:
        before: the cursor's line, left of the cursor.
        rest: the cursor's line, right of the cursor.
        language_id: as LSP spells it.
    """
    language = language_named(language_id)
    before, rest = near_end(before), near_start(rest)
    if rest.strip():
        is_empty_block = before.rstrip().endswith("{") and _CLOSING.match(rest)
        return Extent.BLOCK if is_empty_block and not language.indents_blocks else Extent.LINE
    return Extent.BLOCK if not before.strip() or opens_block(before, language) else Extent.LINE


def opens_block(line: str, language: Language) -> bool:
    """Whether the lines below `line` belong to what its end opens; of a very long line its end is read."""
    code = near_end(line).rstrip()
    reading = read(code, language)
    if reading.inside and reading.inside == language.comment:
        code = code[: reading.inside_from].rstrip()
    elif reading.inside:
        return False
    return language.opener.search(code) is not None


def cut_to_block(middle: str, around: CursorContext) -> str:
    """Cuts before the first line that leaves the cursor's block, or that begins another paragraph at its level.

    After a line that opens a block (`def f():`), a line with the same indentation has left the block, unless it closes
    it. A closing bracket further out stays where the document has none.

    Args:
        middle: what is to be inserted at the cursor.
        around: where.
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
        around: where.
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
