"""Chooses holes of one kind in a file: the trainer's choosers, kept to what that kind means in an evaluation.

A hole begins in code, not in a comment or a docstring: what is written there has no one answer.
"""

from __future__ import annotations

from bisect import bisect_right
from random import Random

from dgemma_engine.tools.corpus.middles import MiddleMix, SourceHole, SourceText, choose_hole
from dgemma_engine.tools.evaluation.holes.code_map import CodeMap
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind

_MIN_CHARACTERS = 3
_MAX_CHARACTERS = 600


_MIXES = {
    HoleKind.LINE: MiddleMix(line=1, block=0, syntax=0, span=0),
    HoleKind.REST: MiddleMix(line=1, block=0, syntax=0, span=0),
    HoleKind.MULTILINE: MiddleMix(line=0, block=1, syntax=0, span=0),
    HoleKind.SYNTAX: MiddleMix(line=0, block=0, syntax=1, span=0),
    HoleKind.SPAN: MiddleMix(line=0, block=0, syntax=0, span=1),
}


class HoleChooser:
    """A file in which holes are chosen; parsed once, however many are.

    Args:
        text: all of the file.
        language: LSP language id.
    """

    def __init__(self, text: str, language: str) -> None:
        self._source = SourceText(text)
        self._map = CodeMap.of(text, language)

    def choose(self, kind: HoleKind, random: Random) -> SourceHole | None:
        """Returns a hole, or None when the draw met none of this kind; the caller draws again.

        Args:
            kind: what is wanted; syntax is found in Python only.
            random: every draw comes from it.
        """
        hole = self._draw(kind, random)
        if hole is None:
            return None
        middle = self._source.text[hole.start : hole.end]
        if not _MIN_CHARACTERS <= len(middle.strip()) <= _MAX_CHARACTERS:
            return None
        if not self._map.is_code(hole.start + len(middle) - len(middle.lstrip())):
            return None
        return hole if self._is_a(kind, hole, middle) else None

    def _draw(self, kind: HoleKind, random: Random) -> SourceHole | None:
        if kind is HoleKind.BALANCED:
            return random.choice(self._map.insides) if self._map.insides else None
        return choose_hole(self._source, _MIXES[kind], random)

    def _is_a(self, kind: HoleKind, hole: SourceHole, middle: str) -> bool:
        starts = self._source.line_starts
        left = self._source.text[starts[bisect_right(starts, hole.start) - 1] : hole.start]
        if kind is HoleKind.LINE:
            return not left.strip() and not middle[0].isspace()
        if kind is HoleKind.REST:
            is_in_a_word = _is_word(left[-1:]) and _is_word(middle[0])
            return bool(left.strip()) and not middle[0].isspace() and not is_in_a_word
        if kind is HoleKind.MULTILINE:
            lines = [line.strip() for line in middle.split("\n")]
            return bool(lines[0] and lines[-1]) and len(lines) >= 2
        return True


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
