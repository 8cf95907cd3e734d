"""Shapes a candidate: a cleaned text -> the text that is shown, and how much of the line's rest it replaces.

Applies the rules in order, each from its own module. A candidate is shaped once, before it is ranked, so that its score
belongs to the text that the user sees. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dgemma_engine.postprocess.brackets import with_closed_brackets, with_closed_strings, without_closed_twice
from dgemma_engine.postprocess.cursor_context import CursorContext, normalize_newlines, opens_block
from dgemma_engine.postprocess.deduplicate import num_covered, without_next_lines, without_repetition
from dgemma_engine.postprocess.extent import columns, cut_outside, cut_to_block
from dgemma_engine.postprocess.indent_style import indent_of
from dgemma_engine.postprocess.indentation import with_document_indentation
from dgemma_engine.protocol.messages import Context, Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedText:
    """A text to insert at the cursor.

    Attributes:
        text: with `\n` line ends; empty for nothing.
        covered: characters right of the cursor that it replaces; all on the cursor's line.
    """

    text: str
    covered: int = 0


_NOTHING = ShapedText(text="")


def shaper(context: Context) -> Callable[[str], ShapedText]:
    """Returns the function that shapes the candidates of a request: as a fill or as ghost text."""
    edges = context.edges
    around = CursorContext.of(
        edges.above + context.prefix[edges.num_before :],
        context.suffix[: len(context.suffix) - edges.num_after] + edges.below,
        context.language,
        is_cut=edges.is_cut,
    )
    if context.on_demand:
        return partial(shape_fill, around=around, extent=context.extent, least_column=context.least_column)
    return partial(shape_completion, around=around, extent=context.extent)


def shape_completion(middle: str, around: CursorContext, extent: Extent) -> ShapedText:
    """Returns what to insert as ghost text or as an entry of a menu.

    Args:
        middle: a candidate.
        around: text around the cursor.
        extent: how far it may reach.
    """
    middle = normalize_newlines(middle)
    if extent is Extent.LINE:
        middle = middle.partition("\n")[0]
    else:
        middle = cut_to_block(with_document_indentation(middle, around), around)
    middle = without_next_lines(without_repetition(middle, around), around)
    covered = num_covered(before=around.before, middle=middle, rest=around.rest)
    once = without_closed_twice(middle, around, covered=covered)
    if once != middle:
        middle, covered = once, num_covered(before=around.before, middle=once, rest=around.rest)
    if not around.rest[covered:].strip():
        middle, covered = middle.rstrip(), len(around.rest[:covered].rstrip())
    added = without_covered(middle, covered, around.rest)
    if not (middle if added is None else added).strip():
        # At most blank lines before what stands there already.
        return _NOTHING
    middle = with_closed_strings(middle, around, covered=covered)
    middle = with_closed_brackets(middle, around, covered=covered)
    if "\n" in middle and around.rest[covered:].strip():
        # What closes the block stands on a line of its own.
        middle = f"{middle.rstrip()}\n{indent_of(around.before)}"
    return ShapedText(text=middle, covered=covered)


def shape_fill(middle: str, around: CursorContext, extent: Extent, *, least_column: int) -> ShapedText:
    """Returns what to write over a selection: as ghost text, but it replaces nothing and keeps its paragraphs.

    Args:
        middle: a candidate.
        around: text around the cursor.
        extent: how far it may reach.
        least_column: least indentation of lines below the first; -1 is that of the block.
    """
    middle = normalize_newlines(middle)
    if extent is Extent.LINE:
        middle = middle.partition("\n")[0]
    else:
        middle = cut_outside(with_document_indentation(middle, around), around, least_column=least_column)
    middle = without_next_lines(without_repetition(middle, around), around)
    said = around.rest[: num_covered(before=around.before, middle=middle, rest=around.rest)]
    middle = without_closed_twice(middle.removesuffix(said), around)
    if not around.rest.strip():
        middle = middle.rstrip()
    if not middle.strip() or _lacks_body(middle, around):
        return _NOTHING
    return ShapedText(text=with_closed_brackets(with_closed_strings(middle, around), around))


def without_covered(text: str, covered: int, suffix: str) -> str | None:
    """Returns a text that gives the same document when inserted without replacing anything; None if there is none.

    Args:
        text: the shape of a candidate.
        covered: characters of the suffix that it replaces.
        suffix: text after the cursor.
    """
    replaced = suffix[:covered]
    return text.removesuffix(replaced) if text.endswith(replaced) else None


def _lacks_body(middle: str, around: CursorContext) -> bool:
    """Whether the last line opens a block without a body, which a grammar of indented blocks does not report."""
    last = (around.before + middle).rpartition("\n")[2]
    if not around.language.indents_blocks or around.rest.strip() or not last.endswith(":"):
        return False
    below = next((line for line in around.lines_below if line.strip()), "")
    return opens_block(last, around.language) and columns(below) <= columns(last)
