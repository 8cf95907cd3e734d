"""Compares the text around the cursor with the text around a place: from a place to the middles it proposes.

Cuts a `Context` at its cursor, and turns the cut and a `NgramIndex` into middles. White space between lexemes, blank
lines and the depth of indentation do not count in a comparison. Does not rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Self

from dgemma_engine.prompt_lookup.ngram_index import (
    GRAM_SIZES,
    LINE_BREAK,
    MAX_LINE_CHARACTERS,
    REACH_LINES,
    STEM_CHARACTERS,
    Line,
    NgramIndex,
    indent_of,
    is_word,
    lexemes_of,
    num_matched,
    spans_of,
    stem_gram,
)
from dgemma_engine.protocol.messages import Context, Extent

_MAX_BEFORE = 32
_MAX_AFTER = 16
_MAX_BLOCK_LINES = 20
_MIN_BEFORE = 2
_SUFFIX_CHARACTERS = 4_096
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
# The breaks of `str.splitlines`: a middle of one line must have none of them.
_BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A document, cut at the cursor.

    Attributes:
        above: whole lines above the cursor's.
        before: the cursor's line up to the cursor.
        rest: the cursor's line after the cursor; its beginning only if it is very long.
        below: whole lines below the cursor's.
        line_break: what the document ends its lines with.
    """

    above: str
    before: str
    rest: str
    below: str
    line_break: str

    @classmethod
    def of(cls, context: Context) -> Self | None:
        """Cuts at line breaks; None where the cursor's line is too long to be worth reading."""
        prefix, suffix = context.prefix, context.suffix
        last = (prefix[-MAX_LINE_CHARACTERS:].splitlines(keepends=True) or [""])[-1]
        before = "" if _BREAK.search(last) else last
        if len(before) == MAX_LINE_CHARACTERS:
            return None
        end = _BREAK.search(suffix)
        line_break = _LINE_END.search(prefix) or _LINE_END.search(suffix)
        return cls(
            above=prefix[: len(prefix) - len(before)],
            before=before,
            rest=suffix[: min(end.start() if end else len(suffix), MAX_LINE_CHARACTERS)],
            below=suffix[end.end() :] if end else "",
            line_break=line_break.group() if line_break else "\n",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSite:
    """Where a middle might begin.

    Attributes:
        line: the line.
        start: index of the lexeme of the line the middle begins with, or in.
        before: lexemes that match before it.
    """

    line: Line
    start: int
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """A text that a place proposes.

    Attributes:
        text: to be inserted at the cursor.
        after: lexemes that match after it.
    """

    text: str
    after: int


class Surroundings:
    """The lexemes around the cursor.

    Args:
        cut: the document, cut at the cursor.
        index: an index of its lines above and below the cursor's, and of what else may be proposed.
        extent: how far a middle may reach.
    """

    def __init__(self, cut: Cut, index: NgramIndex, extent: Extent) -> None:
        self._cut, self._index = cut, index
        self._is_blank, self._is_line_end = not cut.before.strip(), not cut.rest.strip()
        self._is_block = extent is Extent.BLOCK
        # The nearest lines that are not blank.
        self._above, self._below = (
            next((line for line in reversed(run.lines[-REACH_LINES:]) if line.text), None)
            for run in (index.above, index.below)
        )
        typed = lexemes_of(cut.before)
        self._word = typed[-1] if typed and is_word(cut.before[-1]) else ""
        self._typed = typed[:-1] if self._word else typed
        above = self._above.lexemes_before(len(self._above.lexemes)) if self._above else ()
        self._before = list(islice(chain(reversed(self._typed), [LINE_BREAK], above), _MAX_BEFORE))

    @cached_property
    def _after(self) -> list[str]:
        """The lexemes after the cursor; read only where a place was found."""
        rest = () if self._is_line_end else (*lexemes_of(self._cut.rest), LINE_BREAK)
        below = self._below.lexemes_from(0) if self._below else ()
        return list(islice(chain(rest, below), _MAX_AFTER))

    @cached_property
    def _suffix(self) -> tuple[str, ...]:
        """The lexemes that a middle must not repeat; empty where the next line may well begin like the middle."""
        if self._is_line_end and not self._is_blank:
            return ()
        return lexemes_of(f"{self._cut.rest}\n{self._cut.below[:_SUFFIX_CHARACTERS]}")

    def places(self, limit: int) -> list[MatchSite]:
        """Returns places where enough matches before the cursor, after comparing at most `limit`."""
        seen: set[tuple[Line, int]] = set()
        found: list[MatchSite] = []
        num_word = int(len(self._word) >= STEM_CHARACTERS)
        num_to_word = next((n for n, lexeme in enumerate(self._before, start=1) if is_word(lexeme)), _MAX_BEFORE + 1)
        for place in self._candidates(limit):
            if len(seen) == limit:
                break
            if place in seen:
                continue
            seen.add(place)
            line, start = place
            num_same = num_matched(self._before, line.lexemes_before(start))
            if num_same + num_word >= _MIN_BEFORE and (num_word or num_same >= num_to_word):
                found.append(MatchSite(line=line, start=start, before=num_same + num_word))
        return found

    def _candidates(self, limit: int) -> Iterator[tuple[Line, int]]:
        """Yields lines and the lexeme a middle would begin with, the longest runs of lexemes in common first."""
        has_stem = len(self._word) >= STEM_CHARACTERS
        is_begun = bool(self._typed) or has_stem
        above = (*self._above.lexemes, LINE_BREAK) if self._above else tuple[str, ...]()
        before = (LINE_BREAK, *self._typed) if is_begun else above
        grams = [before[-size:] for size in GRAM_SIZES if size <= len(before)]
        for gram in [stem_gram(before[-1], self._word)] if has_stem else grams:
            for near in self._index.near(gram, limit=limit):
                if is_begun:
                    stream = (LINE_BREAK, *near.lexemes, "")
                    for start in range(len(near.lexemes) + 1):
                        if stream[start] == before[-1] and stream[start + 1].startswith(self._word):
                            yield near, start
                elif (line := near.next()) and line.lexemes and line.lexemes[0].startswith(self._word):
                    yield line, 0

    def middles(self, place: MatchSite) -> list[Continuation]:
        """Returns what to insert at the cursor so that it continues like the place: at most a line and a block."""
        line, start = place.line, place.start
        spans = spans_of(line.text)
        if self._word:
            begin = spans[start][0] + len(self._word)
        elif self._is_blank or self._cut.before[-1].isspace():
            begin = spans[start][0] if start < len(spans) else len(line.text)
        else:
            begin = spans[start - 1][1]
        lead = self._indent_to_add(line) if self._is_blank else ""
        if lead is None or (lead and not self._is_line_end):
            return []
        if not self._is_line_end:
            middles = self._up_to_rest(line, start, begin, spans)
        elif self._is_block:
            middles = self._block(line, begin, lead)
        else:
            middles = iter([self._joined([line.text[begin:]], line)])
        return [
            replace(middle, text=lead + middle.text)
            for middle in middles
            if middle.text.strip() and not self._is_there(middle.text)
        ]

    def _indent_to_add(self, line: Line) -> str | None:
        """Returns the white space that brings a blank cursor line to the depth of `line`; None if it does not fit.

        The depth of a line is known by comparison with the line before it, here and there.
        """
        typed = self._cut.before
        here, there = self._above.indent if self._above else "", line.indent
        previous = line.previous()
        base = previous.indent if previous else ""
        if there.startswith(base):
            wanted = here + there[len(base) :]
        elif base.startswith(there) and len(here) >= len(base) - len(there):
            wanted = here[: len(here) - (len(base) - len(there))]
        else:
            return None
        if wanted.startswith(typed) and (not typed or len(typed) >= min(len(here), len(wanted))):
            return wanted[len(typed) :]
        # One level deeper may be four columns here and two there.
        return "" if len(there) > len(base) and typed.startswith(here) and len(typed) > len(here) else None

    def _up_to_rest(self, line: Line, start: int, begin: int, spans: list[tuple[int, int]]) -> Iterator[Continuation]:
        """Yields the text of `line` from `begin` up to where it continues most like the rest of the cursor's line."""
        first, rest = self._after[0], self._cut.rest
        goes_on = is_word(first) and not rest[0].isspace()
        best, depth = Continuation(text="", after=0), 0
        for at, lexeme in enumerate(line.lexemes[start:], start=start):
            end = spans[at][1] - len(first)
            if not depth and end > begin and (lexeme == first or (goes_on and lexeme.endswith(first))):
                after = 1 + num_matched(self._after[1:], line.lexemes_from(at + 1))
                if after > best.after:
                    # The space before what follows is either in the middle or in the rest.
                    text = line.text[begin:end]
                    best = Continuation(text=text.rstrip() if rest[0].isspace() else text, after=after)
            depth += (lexeme in _OPENING) - (lexeme in _CLOSING)
            if depth < 0:
                # Beyond lies what encloses the place.
                break
        yield best

    def _block(self, line: Line, begin: int, lead: str) -> Iterator[Continuation]:
        """Yields the first line from `begin`, and all up to one that continues like the suffix or leaves the block."""
        if self._is_blank and self._continues(line):
            # Here as there, nothing stands between the line above and the one below.
            return
        indent = indent_of(self._cut.before) + lead
        texts, last, num_blank = [line.text[begin:]], line, 0
        num_filled = int(bool(texts[0]))
        for following in line.neighbours(1):
            if not following.text:
                num_blank += 1
                continue
            if self._continues(following) or not self._is_inside(following, line):
                break
            if len(texts) + num_blank >= _MAX_BLOCK_LINES:
                break
            if num_filled == 1:
                yield self._joined(texts, last)
            num_filled += 1
            texts += [""] * num_blank + [indent + following.text[len(line.indent) :]]
            last, num_blank = following, 0
            if following.indent == line.indent and not self._is_blank:
                break
        yield self._joined(texts, last)

    def _continues(self, line: Line) -> bool:
        """Whether `line` is, but for its indentation, the next line of the suffix."""
        return self._below is not None and line.lexemes == self._below.lexemes

    def _is_inside(self, line: Line, first: Line) -> bool:
        """Whether `line` belongs to the block that `first` opens, or on a blank cursor line is the beginning of."""
        if not line.lexemes or not line.indent.startswith(first.indent):
            return False
        is_deeper = len(line.indent) > len(first.indent)
        return is_deeper or self._is_blank or not any(map(is_word, line.lexemes))

    def _joined(self, texts: list[str], last: Line) -> Continuation:
        return Continuation(text=self._cut.line_break.join(texts), after=self._num_after(last))

    def _num_after(self, line: Line) -> int:
        """Returns how many lexemes of the suffix are found after the end of `line`."""
        following = line.next()
        return num_matched(self._after, following.lexemes_from(0)) if following else 0

    def _is_there(self, text: str) -> bool:
        """Whether the suffix begins with `text` already."""
        lexemes = lexemes_of(text)
        return self._suffix[: len(lexemes)] == lexemes
