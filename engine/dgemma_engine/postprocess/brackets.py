"""Brackets and quotes of an answer: cuts those that the document closes already, closes those left open.

Pure. Reads the document as a sequence of strings, comments and brackets, as its language spells them; no grammar. An
answer inside a string or a comment that began above the cursor's line is left alone. `num_unbalanced` and
`without_strings` read any language alike: quotes alone tell where a string begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dgemma_engine.postprocess.cursor_context import CursorContext
from dgemma_engine.postprocess.lexer import CLOSER_OF, OPENER_OF, Bracket, Reading, read

# Most closing brackets that are cut one after another; each costs a reading of the line.
_MOST_CUT = 32
_QUOTE = re.compile(r"[\"'`]")

STRINGS_IN_LINE: Mapping[str, re.Pattern[str]] = {quote: re.compile(rf"(?:\\.|[^{quote}\\\n])*+") for quote in "\"'`"}
"""What stands between a quote and its partner on the same line."""

STRINGS_OVER_LINES: Mapping[str, re.Pattern[str]] = {quote: re.compile(rf"(?:\\.|[^{quote}\\])*+") for quote in "\"'`"}
"""The same on any line."""


def without_closed_twice(middle: str, around: CursorContext, *, covered: int = 0) -> str:
    """Cuts `middle` before a bracket that closes what the text after the cursor closes too.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
        covered: characters of the line's rest that `middle` replaces.
    """
    if OPENER_OF.keys().isdisjoint(middle):
        return middle
    line = _Line.with_middle(middle, around, covered)
    if not line.outer or not around.reaches_start or not _are_counted(around):
        return middle
    allowed = _num_unpaired(_Line.with_middle("", around, covered), around)[0]
    for _ in range(_MOST_CUT):
        if not line.outer or _num_unpaired(line, around)[0] <= allowed:
            break
        middle = middle[: line.outer[-1]].rstrip()
        line = _Line.with_middle(middle, around, covered)
    return middle


def with_closed_ends(middle: str, around: CursorContext, *, covered: int = 0) -> str:
    """Closes a string and brackets that `middle` opens and neither it nor the document closes.

    A string without a character stays open, and so do brackets where the user would type on: after an opening bracket,
    a comma or an operator. A bracket that ended its line is closed on its own line, at its line's indentation.

    Args:
        middle: what is to be inserted at the cursor.
        around: text around the cursor.
        covered: characters of the line's rest that `middle` replaces.
    """
    said = around.before + middle
    reading = read(said, around.language)
    quote, begun = reading.inside, reading.inside_from
    if quote in {*around.language.quotes} and begun >= len(around.before) and not middle.endswith(quote):
        texts = middle, middle + quote
        is_open, is_still_open = (_Line.with_middle(text, around, covered).reading.inside for text in texts)
        if is_open and not is_still_open and _are_counted(around):
            middle, said = middle + quote, said + quote
            reading = read(said, around.language)
    ours = [bracket for bracket in reading.opening if bracket.offset >= len(around.before)]
    if not ours or reading.inside or not _are_counted(around):
        return middle
    last = said.rstrip()[-1:]
    if ours[-1].sign == "{" and (last == ";" or around.language.needs_semicolons):
        is_complete = last in {";", "}"}
    else:
        is_complete = last.isalnum() or last in {"_", ")", "]", "}", '"', "'", "`"}
    if not is_complete:
        return middle
    with_it, without = (_num_unpaired(_Line.with_middle(text, around, covered), around)[1] for text in (middle, ""))
    for bracket in reversed(ours[len(ours) - max(0, min(with_it - without, len(ours))) :]):
        middle += _closing(said, bracket)
    return middle


def closes_what_is_open(line: str, said: str, around: CursorContext) -> bool:
    """Whether `line` has nothing but brackets that the document leaves open, with what ends a statement.

    Args:
        line: a line of an answer.
        said: the answer up to that line.
        around: where the answer is to be inserted.
    """
    if line.strip(" \t)]};,") or not around.reaches_start or not _are_counted(around):
        return False
    before, behind = (
        _num_unpaired(_Line.with_middle(text, around, 0), around)[1] for text in (said, f"{said}\n{line}")
    )
    return before - behind == sum(sign in OPENER_OF for sign in line)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The cursor's line with an answer in it.

    Attributes:
        reading: what it leaves unpaired.
        outer: offsets in the answer of the brackets that close what was opened before it.
    """

    reading: Reading
    outer: list[int]

    @classmethod
    def with_middle(cls, middle: str, around: CursorContext, covered: int) -> _Line:
        reading = read(around.before + middle + around.rest[covered:], around.language)
        if not read(around.before, around.language).inside:
            closing = read(middle, around.language).closing
            return cls(reading=reading, outer=[bracket.offset for bracket in closing])
        offsets = (bracket.offset - len(around.before) for bracket in reading.closing)
        return cls(reading=reading, outer=[offset for offset in offsets if 0 <= offset < len(middle)])


def _are_counted(around: CursorContext) -> bool:
    """Whether brackets count at the cursor: not in prose, nor in a string or comment that began above."""
    return around.language.has_brackets and not around.read_above.inside


def _num_unpaired(line: _Line, around: CursorContext) -> tuple[int, int]:
    """Counts closing and opening brackets without partner in the whole document."""
    above, below = around.read_above, around.read_below
    opened = [bracket.sign for bracket in above.opening]
    num_closing = len(above.closing) + _close(opened, line.reading.closing)
    opened += [bracket.sign for bracket in line.reading.opening]
    num_closing += _close(opened, below.closing)
    return num_closing, len(opened) + len(below.opening)


def _close(opened: list[str], closing: Iterable[Bracket]) -> int:
    """Removes the partners of `closing` from `opened`, in place; returns how many have none."""
    num_without = 0
    num_open = {sign: opened.count(sign) for sign in CLOSER_OF}
    for bracket in closing:
        opener = OPENER_OF[bracket.sign]
        if not num_open[opener]:
            num_without += 1
            continue
        closed = ""
        while closed != opener:
            closed = opened.pop()
            num_open[closed] -= 1
    return num_without


def _closing(said: str, bracket: Bracket) -> str:
    """Returns what closes a bracket of `said` at its end: after the last word, or on a line of its own."""
    line_start = said.rfind("\n", 0, bracket.offset) + 1
    line = said[line_start:].split("\n", maxsplit=1)[0]
    behind = line[bracket.offset - line_start + 1 :]
    closer = CLOSER_OF[bracket.sign]
    if not behind.strip():
        return "\n" + line[: len(line) - len(line.lstrip())] + closer
    return f" {closer}" if bracket.sign == "{" and behind.startswith(" ") else closer
