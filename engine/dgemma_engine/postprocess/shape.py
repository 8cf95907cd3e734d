"""Shapes a candidate: a cleaned text -> the text that is shown, and how much of the line's rest it replaces.

Cuts what an answer repeats of the document, lines above and below the cursor and the rest of the cursor's line, and
applies the rules of extent, indentation and brackets, each from its own module. `clean_candidate` cuts such copies as
they were written; here indentation and block have been corrected, and the document's own lines count. A candidate is
shaped once, before it is ranked, so that its score belongs to the text that the user sees. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dgemma_engine.postprocess.brackets import (
    num_unbalanced,
    with_closed_ends,
    without_closed_twice,
)
from dgemma_engine.postprocess.clean_candidate import splits_word
from dgemma_engine.postprocess.cursor_context import CursorContext, normalize_newlines, opens_block
from dgemma_engine.postprocess.extent import columns, cut_outside, cut_to_block
from dgemma_engine.postprocess.indent_style import indent_of
from dgemma_engine.postprocess.indentation import with_document_indentation
from dgemma_engine.protocol.messages import Context, Extent

_LETTER = re.compile(r"[^\W\d_]")
_LINES_ABOVE = 32
_LONGEST_UNIT = 8
_COPIES = 3
# Tables and lists of equal items are written by people.
_COPIES_OF_ITEMS = 6
_BRACKETS = " \t()[]{};,"
_PUNCTUATION = frozenset("{)]}>\"'`:;, \t")
_CHARS_EACH_SIDE = 1_000
# Counting brackets takes time in proportion to the line; only a line that repeats one piece has more candidates.
_MOST_SHORT, _MOST_LONG = 16, 48


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
    middle = with_closed_ends(middle, around, covered=covered)
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
    return ShapedText(text=with_closed_ends(middle, around))


def without_covered(text: str, covered: int, suffix: str) -> str | None:
    """Returns a text that gives the same document when inserted without replacing anything; None if there is none.

    Args:
        text: the shape of a candidate.
        covered: characters of the suffix that it replaces.
        suffix: text after the cursor.
    """
    replaced = suffix[:covered]
    return text.removesuffix(replaced) if text.endswith(replaced) else None


def without_repetition(middle: str, around: CursorContext) -> str:
    """Cuts `middle` before a line or group of lines that would be repeated once too often.

    Three equal ones after each other are too many, six of a list. What has no letters may recur, and so may what the
    user has begun to type.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
    """
    if around.rest.strip():
        return middle
    above = [line.rstrip() for line in around.lines_above[-_LINES_ABOVE:]]
    said = (around.before + middle).split("\n")
    lines = above + [line.rstrip() for line in said]
    first = len(above) + bool(around.before.strip())
    for end in range(first + 1, len(lines) + 1):
        for size in range(1, min(_LONGEST_UNIT, end - first) + 1):
            unit = lines[end - size : end]
            copies = _COPIES_OF_ITEMS if unit and unit[-1].endswith(",") else _COPIES
            if end < size * copies or not unit[-1] or not _LETTER.search("\n".join(unit)):
                continue
            if all(lines[end - size * (copy + 1) : end - size * copy] == unit for copy in range(1, copies)):
                kept = "\n".join(said[: end - size - len(above)])
                return kept[len(around.before) :].rstrip()
    return middle


def without_next_lines(middle: str, around: CursorContext) -> str:
    """Drops the end of `middle` from the first line on that repeats the lines below the cursor.

    Indentation counts. The last of several such lines may have been cut short by the answer's end. A line of brackets
    alone is repeated in good code too; `brackets` decides whether it may be.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
    """
    below = [line.rstrip() for line in around.lines_below if line.strip()]
    lines = (around.before + middle).split("\n")
    for index, line in enumerate(lines):
        if not line.strip(_BRACKETS):
            continue
        tail = [line.rstrip() for line in lines[index:] if line.strip()]
        there = below[: len(tail)]
        is_cut_short = len(tail) == len(there) > 1 and tail[:-1] == there[:-1] and there[-1].startswith(tail[-1])
        if (tail == there or is_cut_short) and (index > 0 or not around.rest.strip()):
            kept = "\n".join(lines[:index])
            return kept[len(around.before) :] if index else ""
    return middle


def num_covered(*, before: str, middle: str, rest: str) -> int:
    """Returns how many characters of `rest` the completion replaces, because `middle` repeats them.

    The rest is compared by brackets and quotes, so that `foo(|)` never becomes `foo(a))`. An answer of several lines
    replaces only characters that close brackets and strings. Of the parts that `middle` really repeats, the one that
    leaves fewest brackets and quotes open wins, the longest among equals.

    Args:
        before: the line left of the cursor.
        middle: what is to be inserted at the cursor.
        rest: the line right of the cursor.
    """
    if not rest.strip() or ("\n" in middle and not _PUNCTUATION.issuperset(rest)):
        return 0
    # A minified file is one line: distant text must not cost time at every key.
    before, rest = before[-_CHARS_EACH_SIDE:], rest[:_CHARS_EACH_SIDE]
    covered, fewest = 0, num_unbalanced(before + middle + rest)
    candidates: list[tuple[int, bool]] = []
    for count in range(1, min(len(rest), len(middle)) + 1):
        said = rest[:count]
        repeated = middle.endswith(said) and not splits_word(before + middle, rest, count)
        characters = iter(middle)
        # Punctuation counts, whose characters stand in the middle in the same order.
        is_said = _PUNCTUATION.issuperset(said) and all(character in characters for character in said)
        if repeated or is_said:
            candidates.append((count, repeated))
    for count, repeated in candidates[:_MOST_SHORT] + candidates[_MOST_SHORT:][-_MOST_LONG:]:
        unbalanced = num_unbalanced(before + middle + rest[count:])
        # Of `);` the semicolon, too, which pairs with nothing.
        goes_on = covered > 0 and middle.endswith(rest[count - 1])
        if unbalanced < fewest or (unbalanced == fewest and (repeated or goes_on)):
            covered, fewest = count, unbalanced
    return covered


def _lacks_body(middle: str, around: CursorContext) -> bool:
    """Whether the last line opens a block without a body, which a grammar of indented blocks does not report."""
    last = (around.before + middle).rpartition("\n")[2]
    if not around.language.indents_blocks or around.rest.strip() or not last.endswith(":"):
        return False
    below = next((line for line in around.lines_below if line.strip()), "")
    return opens_block(last, around.language) and columns(below) <= columns(last)
