"""The n-gram index of a document and its snippets: finds lines by their lexemes, and follows edits line by line.

Lexemes are the units by which two pieces of code are compared, whatever the tokenizer: words (identifiers, numbers) and
single punctuation characters. White space is dropped; `LINE_BREAK` stands between the lexemes of two lines.

Turns the lines above and below the cursor's line, and snippets, into an index from short runs of lexemes to lines.
The cursor's own line is in neither part. Independent of the cursor's column and of the use of a place.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

LINE_BREAK = "\n"
# Longer lines are data or generated: they are not typed again.
MAX_LINE_CHARACTERS = 512

_LEXEME = re.compile(r"\w+|[^\w\s]")

GRAM_SIZES = (4, 2)
STEM_CHARACTERS = 3

_MAX_SORTED = 1_024
REACH_LINES = 32
"""Lines around a line that are its neighbours."""


def lexemes_of(text: str) -> tuple[str, ...]:
    """Returns the lexemes of one line."""
    # A lexeme recurs all over a document: one object for all of them saves memory and makes comparing them fast.
    return tuple(map(sys.intern, _LEXEME.findall(text)))


def spans_of(text: str) -> list[tuple[int, int]]:
    """Returns where each of `lexemes_of(text)` starts and ends, in characters."""
    return [match.span() for match in _LEXEME.finditer(text)]


def is_word(lexeme: str) -> bool:
    """Whether a lexeme is an identifier or a number, not punctuation or a line break."""
    return lexeme[0].isalnum() or lexeme[0] == "_"


def indent_of(text: str) -> str:
    """Returns the white space a line begins with."""
    return text[: len(text) - len(text.lstrip())]


def num_matched(wanted: Iterable[str], found: Iterable[str]) -> int:
    """Returns how many leading lexemes are the same."""
    count = 0
    for a, b in zip(wanted, found, strict=False):
        if a != b:
            break
        count += 1
    return count


def stem_gram(previous: str, word: str) -> tuple[str, ...]:
    """Returns the key under which a line stands that has `previous` and then a word with the beginning of `word`."""
    # No lexeme is empty, so that no run of lexemes has the same key.
    return (previous, word[:STEM_CHARACTERS], "")


class Line:
    """One line of the index, compared by identity: equal lines stand at different places.

    Attributes:
        text: the line without trailing space; empty for a blank line.
        lexemes: its lexemes; empty for a blank line and for one too long to be worth reading.
        run: the run it belongs to.
        at: its position in `run.lines`.
    """

    __slots__ = ("at", "lexemes", "run", "text")

    def __init__(self, text: str, run: LineRun) -> None:
        self.text = text
        self.lexemes = lexemes_of(text) if len(text) <= MAX_LINE_CHARACTERS else ()
        self.run = run
        self.at = 0

    @property
    def indent(self) -> str:
        """White space before the first lexeme."""
        return indent_of(self.text)

    def neighbours(self, direction: int) -> Iterator[Line]:
        """Yields the next few lines, blank ones too, in reading order (`direction` 1) or against it (-1)."""
        lines, step = self.run.lines, direction * self.run.step
        stop = min(len(lines), self.at + REACH_LINES + 1) if step > 0 else max(-1, self.at - REACH_LINES - 1)
        for at in range(self.at + step, stop, step):
            yield lines[at]

    def previous(self) -> Line | None:
        """Returns the nearest line before this one that is not blank."""
        return next((line for line in self.neighbours(-1) if line.text), None)

    def next(self) -> Line | None:
        """Returns the nearest line after this one that is not blank."""
        return next((line for line in self.neighbours(1) if line.text), None)

    def lexemes_before(self, end: int) -> Iterator[str]:
        """Yields lexemes against reading order from lexeme `end` (exclusive), over lines; blank lines are skipped."""
        yield from reversed(self.lexemes[:end])
        yield LINE_BREAK
        line = self.previous()
        while line is not None and line.lexemes:
            yield from reversed(line.lexemes)
            yield LINE_BREAK
            line = line.previous()

    def lexemes_from(self, start: int) -> Iterator[str]:
        """Yields lexemes in reading order from lexeme `start`, over lines; blank lines are skipped."""
        yield from self.lexemes[start:]
        line = self.next()
        while line is not None and line.lexemes:
            yield LINE_BREAK
            yield from line.lexemes
            line = line.next()


class LineRun:
    """Lines that stand next to each other.

    Attributes:
        lines: in reading order, or against it.
        step: 1 if `lines` is in reading order, -1 if against it.
        rank: 0 in the document; in snippets 1 for the most relevant, then 2 and so on.
    """

    __slots__ = ("lines", "rank", "step")

    def __init__(self, *, step: int = 1, rank: int = 0) -> None:
        self.lines: list[Line] = []
        self.step = step
        self.rank = rank


class NgramIndex:
    """Lines by the runs of lexemes in them.

    Both halves of the document grow towards the cursor, the lower one against reading order, so that an edit there
    moves no other line.

    Attributes:
        above: lines above the cursor's.
        below: lines below the cursor's, the last line of the document first.
    """

    def __init__(self) -> None:
        self.above = LineRun()
        self.below = LineRun(step=-1)
        self._snippets: dict[str, LineRun] = {}
        # Most grams stand in one line only: no set for those halves the memory.
        self._lines: dict[tuple[str, ...], Line | set[Line]] = {}

    @property
    def num_entries(self) -> int:
        """How many pairs of a gram and a line are kept."""
        return sum(len(held) if isinstance(held, set) else 1 for held in self._lines.values())

    def update(self, *, above: Sequence[str], below: Sequence[str]) -> None:
        """Makes these the document's lines; only what changed is indexed anew.

        Args:
            above: lines above the cursor's, in reading order.
            below: lines below the cursor's, in reading order.
        """
        changes = [(self.above, _stripped(above)), (self.below, _stripped(below)[::-1])]
        # A cursor that moves takes lines from one half to the other: those are not indexed anew either.
        spare: defaultdict[str, list[Line]] = defaultdict(list)
        for run, texts in changes:
            num_kept = num_matched(texts, (line.text for line in run.lines))
            for line in run.lines[num_kept:]:
                spare[line.text].append(line)
            del run.lines[num_kept:]
        for run, texts in changes:
            for text in texts[len(run.lines) :]:
                self._append(run, spare[text].pop() if spare[text] else self._new_line(text, run))
        for lines in spare.values():
            for line in lines:
                self._forget(line)

    def update_snippets(self, texts: Sequence[str]) -> None:
        """Makes these the snippets, most relevant last; those that stay are not indexed anew."""
        wanted = dict.fromkeys(reversed(texts))
        for text in self._snippets.keys() - wanted.keys():
            for line in self._snippets.pop(text).lines:
                self._forget(line)
        for rank, text in enumerate(wanted, start=1):
            if text not in self._snippets:
                run = self._snippets[text] = LineRun()
                for line in _stripped(text.splitlines()):
                    self._append(run, self._new_line(line, run))
            self._snippets[text].rank = rank

    def near(self, gram: tuple[str, ...], *, limit: int) -> list[Line]:
        """Returns lines that hold `gram`, nearest to the cursor first, at most `limit`."""
        held = self._lines.get(gram, set[Line]())
        lines = held if isinstance(held, set) else {held}
        if len(lines) <= _MAX_SORTED:
            return sorted(lines, key=_distance)[:limit]
        # An n-gram that is everywhere is also near the cursor.
        runs = (self.above, self.below, *self._snippets.values())
        around = (line for run in runs for line in run.lines[-_MAX_SORTED:])
        return sorted((line for line in around if line in lines), key=_distance)[:limit]

    def _append(self, run: LineRun, line: Line) -> None:
        line.run, line.at = run, len(run.lines)
        run.lines.append(line)

    def _new_line(self, text: str, run: LineRun) -> Line:
        line = Line(text, run)
        for gram in _grams(line.lexemes):
            held = self._lines.setdefault(gram, line)
            if isinstance(held, set):
                held.add(line)
            elif held is not line:
                self._lines[gram] = {held, line}
        return line

    def _forget(self, line: Line) -> None:
        for gram in _grams(line.lexemes):
            held = self._lines[gram]
            if isinstance(held, set) and len(held) > 1:
                held.remove(line)
            else:
                del self._lines[gram]


def _grams(lexemes: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Returns the keys of a line: its runs of lexemes, and its words' beginnings with the lexeme before them."""
    if not lexemes:
        return set()
    stream = (LINE_BREAK, *lexemes, LINE_BREAK)
    grams = {stem_gram(a, b) for a, b in pairwise(stream) if len(b) >= STEM_CHARACTERS}
    for size in GRAM_SIZES:
        grams.update(zip(*(stream[start:] for start in range(size)), strict=False))
    return grams


def _distance(line: Line) -> tuple[int, int, int]:
    """Returns what lines are sorted by: the document before snippets, then distance in lines, then what is above."""
    return line.run.rank, len(line.run.lines) - line.at, -line.run.step


def _stripped(lines: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in lines]
