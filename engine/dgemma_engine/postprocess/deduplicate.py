"""Cuts what an answer repeats of the document: lines above and below the cursor, and the rest of the cursor's line.

Pure. `clean_candidate` cuts such copies as they were written; here indentation and block have been corrected, and the
document's own lines count. The rest of a line is compared by brackets and quotes, so that `foo(|)` never becomes
`foo(a))`; quotes alone tell where a string begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dgemma_engine.postprocess.cursor_context import CursorContext
from dgemma_engine.postprocess.lexer import CLOSER_OF

_LETTER = re.compile(r"[^\W\d_]")
_INSIDE_WORD = re.compile(r"\w\w")
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
_QUOTE = re.compile(r"[\"'`]")

STRINGS_IN_LINE: Mapping[str, re.Pattern[str]] = {quote: re.compile(rf"(?:\\.|[^{quote}\\\n])*+") for quote in "\"'`"}
"""What stands between a quote and its partner on the same line."""

STRINGS_OVER_LINES: Mapping[str, re.Pattern[str]] = {quote: re.compile(rf"(?:\\.|[^{quote}\\])*+") for quote in "\"'`"}
"""The same on any line."""


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

    An answer of several lines replaces only characters that close brackets and strings. Of the parts that `middle`
    really repeats, the one that leaves fewest brackets and quotes open wins, the longest among equals.

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


def num_unbalanced(line: str) -> int:
    """Returns how many brackets of `line` lack their partner, plus quotes that close no string."""
    bare = without_strings(line, STRINGS_OVER_LINES)
    unbalanced = sum(bare.count(quote) for quote in "\"'`")
    stack: list[str] = []
    for character in bare:
        if character in CLOSER_OF:
            stack.append(CLOSER_OF[character])
        elif character in ")]}":
            if stack and stack[-1] == character:
                stack.pop()
            else:
                unbalanced += 1
    return unbalanced + len(stack)


def without_strings(text: str, inside: Mapping[str, re.Pattern[str]] = STRINGS_IN_LINE) -> str:
    """Returns `text` without its strings; a quote that ends no string stays.

    From a quote that has no partner to where the search for it ended, no quote of its kind has one: none is searched
    from again.

    Args:
        text: any.
        inside: by quote, what may stand between it and its partner.
    """
    kept: list[str] = []
    start = at = 0
    unclosed_to = dict.fromkeys(inside, 0)
    while sign := _QUOTE.search(text, at):
        quote, begin = sign.group(), sign.start()
        at = begin + 1
        if begin < unclosed_to[quote]:
            continue
        said = inside[quote].match(text, at)
        end = said.end() if said else at
        if text.startswith(quote, end):
            kept.append(text[start:begin])
            start = at = end + 1
        else:
            unclosed_to[quote] = end
    return "".join([*kept, text[start:]])


def splits_word(said: str, rest: str, count: int) -> bool:
    """Whether `rest[:count]` ends inside a word, or is only the last letter of the word that `said` ends with."""
    ends_inside = _INSIDE_WORD.fullmatch(rest[count - 1 : count + 1])
    return bool(ends_inside or (count == 1 and _INSIDE_WORD.fullmatch(said[-2:])))
