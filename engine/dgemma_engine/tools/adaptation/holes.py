"""Chooses holes in a window of source text of any language: spans that a person at an editor would want filled.

Knows characters and lines; knows nothing of tokens and grammars.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Literal

HoleKind = Literal["line", "rest", "lines", "syntax", "random"]
KINDS: tuple[HoleKind, ...] = ("line", "rest", "lines", "syntax", "random")
# Whole lines and rests are what an editor asks for most; hard spots pay most in small models (arXiv 2412.16589).
_SHARES = (0.35, 0.30, 0.13, 0.15, 0.07)
_CLOSING, _OPENING = ")]},:;\"'", "([{,=\"' ."
_MOST_LINES, _MOST_RANDOM = 6, 30
# Draws for each hole that is wanted: blank lines and lines without brackets give none.
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHole:
    """A gap in a text: `text[start:end]` is the middle.

    Attributes:
        start: first character of the middle.
        end: one past its last character.
        kind: a whole line without its indent, the rest of one, two to six lines, what stands between two marks of
            the syntax, or any characters of one line.
    """

    start: int
    end: int
    kind: HoleKind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    start: int
    text: str

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def choose_holes(text: str, random: Random, *, count: int, max_characters: int, most_at_end: int = 1) -> list[TextHole]:
    """Returns up to `count` holes; they may overlap. The first line has none, since nothing stands before it.

    Args:
        text: a window of a file.
        random: every draw comes from it.
        count: holes wanted; a text with few usable lines gives fewer.
        max_characters: longest middle.
        most_at_end: holes that end at one place; those after the first are the line to there, and rests of it.
    """
    texts = text.split("\n")
    starts = [*accumulate((len(line) + 1 for line in texts), initial=0)]
    lines = [_Line(start=start, text=line) for start, line in zip(starts, texts, strict=False)]
    holes: list[TextHole] = []
    for _ in range(count * _ATTEMPTS if len(lines) > 1 else 0):
        if len(holes) >= count:
            break
        index = random.randrange(1, len(lines))
        if len(lines[index].text.strip()) < 2:
            continue
        hole = _hole(lines, index, random.choices(KINDS, _SHARES)[0], random)
        if hole is None:
            continue
        last = lines[bisect_right(starts, hole.end) - 1]
        at_end = [hole, *_others_to(hole, last, random)]
        usable = [one for one in at_end if one.end - one.start <= max_characters and text[one.start : one.end].strip()]
        holes += usable[:most_at_end]
    return holes[:count]


def _others_to(hole: TextHole, line: _Line, random: Random) -> list[TextHole]:
    """Returns holes that end where one ends that reaches the end of `line`: all of the line, and rests of it."""
    if hole.end != line.end:
        return []
    places = [line.start + line.indent, *(line.start + random.randrange(line.indent, len(line.text)) for _ in range(3))]
    starts = [start for start in dict.fromkeys(places) if start != hole.start]
    kinds: dict[bool, HoleKind] = {True: "line", False: "rest"}
    return [TextHole(start=start, end=hole.end, kind=kinds[start == places[0]]) for start in starts]


def _hole(lines: list[_Line], index: int, kind: HoleKind, random: Random) -> TextHole | None:
    line = lines[index]
    start, end = line.start + line.indent, line.end
    if kind == "rest":
        start = line.start + random.randrange(line.indent, len(line.text))
    elif kind == "lines":
        last = lines[min(len(lines) - 1, index + random.randrange(1, _MOST_LINES))]
        if last is line or not last.text.strip():
            return None
        end = last.end
    elif kind == "syntax":
        span = _between_marks(line, random)
        if span is None:
            return None
        start, end = span
    elif kind == "random":
        start = line.start + random.randrange(line.indent, len(line.text))
        end = min(end, start + random.randrange(2, _MOST_RANDOM))
    return TextHole(start=start, end=end, kind=kind)


def _between_marks(line: _Line, random: Random) -> tuple[int, int] | None:
    """Returns from after the nearest opening mark to a closing one: an argument, an index, a condition, a string."""
    closing = [place for place, character in enumerate(line.text) if character in _CLOSING and place > line.indent]
    if not closing:
        return None
    end = random.choice(closing)
    opening = max(line.text.rfind(mark, line.indent, end) for mark in _OPENING) + 1
    return line.start + max(line.indent, opening), line.start + end
