"""Corrects the indentation of an answer where it is clearly wrong for its place: levels, tabs and spaces, first line.

Pure. A line that may be indented as it is stays: alignment is a matter of taste.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dgemma_engine.postprocess.block_columns import body_column, closer_column, open_blocks, with_closers_aligned
from dgemma_engine.postprocess.cursor_context import CursorContext, opens_block
from dgemma_engine.postprocess.extent import closes, is_label
from dgemma_engine.postprocess.indent_style import IndentStyle, indent_of, style_of
from dgemma_engine.postprocess.lexer import read

_UNINDENTED_BLOCK = re.compile(r"\s*(?:namespace|extern)\b")
_GOES_ON = re.compile(r"[.?:&|+\-*/%=<>,]")
_STATEMENT_END = re.compile(r"[\w)\]}\"'`;{:]\Z")
_CHARS_OF_STATEMENT = 400
# Spaces of a level where neither the answer nor the document shows one.
_SPACES = 4


def with_document_indentation(middle: str, around: CursorContext) -> str:
    """Returns `middle`, indented as the document is.

    1. On a blank line, what the answer repeats of the indentation that stands there is dropped, and what lacks after
       the opener of a block is added. In a block of brackets a closer gets the column of its opener's line, a statement
       one inside of the block, and one below a finished statement no more than that statement's.
    2. Lines below the first that were written as if the cursor's line were not indented are indented with it.
    3. Levels of another width, and tabs for spaces or spaces for tabs, become the document's.
    4. What closes a block of the answer, and stands outside of the cursor's, gets the column of the block's opener.

    In a string or a comment that began above the cursor's line everything stays.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
    """
    if "\n" not in middle and around.before.strip():
        return middle
    first, *lower = middle.split("\n")
    style = style_of(around, lower)
    if not around.before.strip() and first.strip():
        first, lower = _with_first_line(first, lower, around, style)
    if any(line.strip() for line in lower):
        lower = _with_lower_lines(around.before + first, lower, around, style)
        lower = with_closers_aligned(around.before + first, lower, around, style)
    indented = "\n".join([first, *lower])
    return middle if indented == middle or around.read_above.inside else indented


def _with_first_line(first: str, lower: list[str], around: CursorContext, style: IndentStyle) -> tuple[str, list[str]]:
    """Returns the lines with the first one as deep as the line above it allows."""
    above = next((line for line in reversed(around.lines_above) if line.strip()), "")
    if not around.language.has_depth or not above:
        return first, lower
    opens = opens_block(above, around.language)
    above_columns = style.columns(indent_of(above))
    depth = above_columns + (style.unit or _SPACES) * opens
    own = style.columns(around.before)
    lead = indent_of(first)
    columns = style.columns(around.before + lead)
    text = first[len(lead) :]
    if lead and own and columns > depth and not _GOES_ON.match(text) and _ends_statement(above, around):
        lower = _moved(lower, columns, max(depth, own), style, opens=opens_block(text, around.language))
        return style.blanks(max(0, depth - own)) + text, lower
    if (placed := _in_brackets(first, lower, above, around, style)) is not None:
        return placed
    stays = closes(text) or is_label(text) or _UNINDENTED_BLOCK.match(above)
    # The last of several lines of a condition or of arguments does not say how deep the first one stands.
    is_last = not closes(above) and read(above, around.language).closing
    if not opens or columns > above_columns or stays or is_last:
        return first, lower
    missing = depth - columns
    if all(style.columns(indent_of(line)) < depth for line in lower if line.strip()):
        lower = [_deeper(line, missing, style) for line in lower]
    return style.blanks(depth)[len(around.before) :] + text, lower


def _in_brackets(
    first: str, lower: list[str], above: str, around: CursorContext, style: IndentStyle
) -> tuple[str, list[str]] | None:
    """Returns the lines with the first at the column that the open brackets prescribe; None where they do not."""
    lead = indent_of(first)
    text = first[len(lead) :]
    own, columns = style.columns(around.before), style.columns(around.before + lead)
    if closes(text):
        target = closer_column(text, open_blocks(around), style)
        if target is None or target < own or not (columns < target or (text.startswith("}") and columns > target)):
            return None
    elif not own and lead and (target := _column_below(above, around, style)) is not None and columns > target:
        if _GOES_ON.match(text) or is_label(text):
            return None
    elif is_label(text) or _UNINDENTED_BLOCK.match(text):
        return None
    else:
        blocks = open_blocks(around)
        target = body_column(blocks, above, around, style)
        is_outside = bool(blocks) and columns <= style.columns(indent_of(blocks[-1].line))
        is_misplaced = is_outside or (around.language.is_data and own < columns != target)
        if target is None or not is_misplaced or target < own:
            return None
    lower = _moved(lower, columns, target, style, opens=opens_block(text, around.language))
    return style.blanks(target)[len(around.before) :] + text, lower


def _column_below(above: str, around: CursorContext, style: IndentStyle) -> int | None:
    """Returns the column of a statement below `above`; None where that line may leave a statement unfinished."""
    code = above.rstrip()
    before = around.above[: around.above.rindex(above)]
    starts_anew = code.endswith((";", "}", "{")) or (
        around.language.ends_with_line and not code.lstrip().startswith(around.language.comment)
    )
    if not starts_anew or is_label(above) or not _ends_statement(above, around) or read(before, around.language).inside:
        return None
    opens = opens_block(above, around.language)
    if read(code, around.language).closing and not closes(above):
        return None
    return style.columns(indent_of(above)) + style.unit * opens if style.unit or not opens else None


def _moved(lower: list[str], columns: int, target: int, style: IndentStyle, *, opens: bool) -> list[str]:
    """Returns lower lines moved as the first was, from `columns` to `target`, where they were written with it."""
    texts = [line for line in lower if line.strip()]
    depths = [style.columns(indent_of(line)) for line in texts]
    if not texts:
        return lower
    if columns > target:
        goes_along = min(depths) >= columns and (not opens or depths[0] > columns or closes(texts[0]))
    else:
        goes_along = depths[0] <= target if opens else min(depths) < target
    return [_deeper(line, target - columns, style) for line in lower] if goes_along else lower


def _with_lower_lines(cursor_line: str, lower: list[str], around: CursorContext, style: IndentStyle) -> list[str]:
    """Returns the lines below the cursor's in the document's levels."""
    base = indent_of(cursor_line)
    opens = opens_block(cursor_line, around.language)
    lower = _in_style(cursor_line, lower, opens, style)
    base_columns = style.columns(base)
    texts = [line for line in lower if line.strip()]
    columns = style.columns(indent_of(texts[0]))
    # What closes a bracket opened above stands as that line does, and a comment as its author likes.
    is_plain = not read(cursor_line, around.language).closing and not any("/*" in line for line in lower)
    is_block = opens and is_plain and around.language.has_depth and not is_label(cursor_line)
    if is_block and 0 < columns <= base_columns and not closes(texts[0]) and not is_label(texts[0]):
        lower = [_deeper(line, base_columns, style) for line in lower]
        columns += base_columns
    step = columns - base_columns
    if is_block and style.unit and 0 < step != style.unit and cursor_line.rstrip()[-1:] in {":", "{"}:
        lower = _in_steps(lower, base_columns, step, style)
    return lower


def _in_style(cursor_line: str, lower: Sequence[str], opens: bool, style: IndentStyle) -> list[str]:
    """Returns the lines with tabs for spaces or spaces for tabs, where the document has the others."""
    wrong = [line for line in lower if line.strip() and not style.allows(indent_of(line))]
    if not wrong:
        return list(lower)
    if not style.tab or style.tab != style.unit:
        return [style.blanks(style.columns(indent_of(line))) + line.lstrip(" \t") for line in lower]
    first = next(line for line in lower if line.strip())
    level = style.columns(indent_of(cursor_line)) // style.tab + (opens and not closes(first))
    width = len(indent_of(first).expandtabs(_SPACES))
    own = width // level if level and width % level == 0 and 1 < width // level <= 8 else _SPACES
    columns = [len(indent_of(line).expandtabs(own)) for line in lower]
    return [
        "\t" * (wide // own) + " " * (wide % own) + line.lstrip(" \t")
        for wide, line in zip(columns, lower, strict=True)
    ]


def _in_steps(lower: list[str], base: int, step: int, style: IndentStyle) -> list[str]:
    """Returns the lines with steps of the document's width, where all are whole steps deeper than `base` columns."""
    depths = [style.columns(indent_of(line)) - base for line in lower]
    if any(depth > 0 and depth % step for depth, line in zip(depths, lower, strict=True) if line.strip()):
        return lower
    return [
        style.blanks(base + depth // step * style.unit) + line.lstrip(" \t") if depth > 0 and line.strip() else line
        for depth, line in zip(depths, lower, strict=True)
    ]


def _deeper(line: str, columns: int, style: IndentStyle) -> str:
    if not line.strip():
        return line
    return style.blanks(style.columns(indent_of(line)) + columns) + line.lstrip(" \t")


def _ends_statement(line: str, around: CursorContext) -> bool:
    """Whether what stands below `line` begins anew: nothing is open, no operator is left over."""
    reading = read(around.above[-_CHARS_OF_STATEMENT:].partition("\n")[2], around.language)
    has_open = any(bracket.sign != "{" for bracket in reading.opening)
    code = line.rstrip()
    ends = code[-1:] in {";", "{", "}", ":"} if around.language.needs_semicolons else _STATEMENT_END.search(code)
    return bool(ends) and not has_open
