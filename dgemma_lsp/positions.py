"""Where things stand in a text: (line, column in some encoding's code units) <-> offset in code points.

Lines end with `\\n`, `\\r\\n` or a lone `\\r`, as the protocol says, and with nothing else: a form feed or U+2028 is an
ordinary character. Positions that do not exist are clamped to the nearest one before them. Knows no protocol types.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from enum import StrEnum
from itertools import accumulate, count
from operator import add

_LINE_END = re.compile(r"\r\n|\r|\n")
# Looking at a long line piece by piece costs as many operations as there are pieces.
_PIECE_CHARS = 1_024


class PositionEncoding(StrEnum):
    """What a column counts; the values are the protocol's names."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


_CODECS = {PositionEncoding.UTF8: "utf-8", PositionEncoding.UTF16: "utf-16-le", PositionEncoding.UTF32: "utf-32-le"}
_UNIT_BYTES = {PositionEncoding.UTF8: 1, PositionEncoding.UTF16: 2, PositionEncoding.UTF32: 4}


class LineIndex:
    """Where the lines of one text start. Built in one pass; every look-up after that costs one line.

    Args:
        text: the text, in code points.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        if "\r" in text:
            self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
        else:
            # Without a Python operation per line: a key in a text of a megabyte must cost next to nothing.
            self._starts = [0, *map(add, accumulate(map(len, text.split("\n"))), count(1))]
            self._starts.pop()

    @property
    def num_lines(self) -> int:
        """Lines in the text; one more than its line ends, so an empty text has one."""
        return len(self._starts)

    def line_at(self, offset: int) -> int:
        """Returns the 0-based line that holds `offset`, which must lie in the text."""
        return bisect_right(self._starts, offset) - 1

    def span(self, line: int) -> tuple[int, int]:
        """Returns where 0-based `line` starts and ends, its line end left out."""
        start = self._starts[line]
        end = self._starts[line + 1] if line + 1 < len(self._starts) else len(self._text)
        if end > start and self._text[end - 1] == "\n":
            end -= 1
        if end > start and self._text[end - 1] == "\r":
            end -= 1
        return start, end

    def offset(self, line: int, column: int, encoding: PositionEncoding) -> int:
        """Returns the offset of a position.

        Args:
            line: 0-based; past the last line means the end of the text.
            column: 0-based, in code units of `encoding`; past the line's end means its end, inside a character means
                before it.
            encoding: what `column` counts.
        """
        if line >= len(self._starts):
            return len(self._text)
        start, end = self.span(max(line, 0))
        return start + _num_code_points(self._text[start:end], max(column, 0), encoding)

    def position(self, offset: int, encoding: PositionEncoding) -> tuple[int, int]:
        """Returns line and column of an offset; between `\\r` and `\\n` means before both, past the end the end.

        Args:
            offset: in code points.
            encoding: what the column shall count.
        """
        offset = min(max(offset, 0), len(self._text))
        line = self.line_at(offset)
        start, end = self.span(line)
        return line, num_units(self._text[start : min(offset, end)], encoding)


def num_units(text: str, encoding: PositionEncoding) -> int:
    """Returns the code units that `encoding` needs for `text`; lone surrogates included."""
    if encoding is PositionEncoding.UTF32 or text.isascii():
        return len(text)
    return len(text.encode(_CODECS[encoding], "surrogatepass")) // _UNIT_BYTES[encoding]


def _num_code_points(line: str, units: int, encoding: PositionEncoding) -> int:
    if encoding is PositionEncoding.UTF32 or line.isascii():
        return min(units, len(line))
    start = 0
    while start < len(line) and (piece_units := num_units(line[start : start + _PIECE_CHARS], encoding)) <= units:
        start, units = start + _PIECE_CHARS, units - piece_units
    for index, character in enumerate(line[start : start + _PIECE_CHARS], start):
        units -= num_units(character, encoding)
        if units < 0:
            return index
    return len(line)
