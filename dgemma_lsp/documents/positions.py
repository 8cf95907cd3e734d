"""Positions in a text: (line, column in some encoding's code units) <-> offset in code points.

Lines end with `\\n`, `\\r\\n` or a lone `\\r`, as the protocol says, and with nothing else: a form feed or U+2028 is an
ordinary character. Positions that do not exist are clamped to the nearest one before them. A text is held in blocks
that an edit shares with the text before it. Knows no protocol types.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, islice

_LINE_END = re.compile(r"\r\n|\r|\n")
# Reading a long line in pieces costs as many operations as there are pieces.
_PIECE_CHARS = 1_024
# An edit counts two blocks anew and adds up the counts of all.
_BLOCK_CHARS = 32_768


class PositionEncoding(StrEnum):
    """What a column counts; the values are the protocol's names."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


_CODECS = {PositionEncoding.UTF8: "utf-8", PositionEncoding.UTF16: "utf-16-le", PositionEncoding.UTF32: "utf-32-le"}
_UNIT_BYTES = {PositionEncoding.UTF8: 1, PositionEncoding.UTF16: 2, PositionEncoding.UTF32: 4}


@dataclass(slots=True)
class _Block:
    """Part of a text, which no `\\r\\n` straddles, and what was counted in it.

    Attributes:
        text: the part.
        num_line_ends: line ends in it.
        units: code units of the whole part by encoding, where they were counted.
    """

    text: str
    num_line_ends: int
    units: dict[PositionEncoding, int] = field(default_factory=dict["PositionEncoding", int])


class LineIndex:
    """Where the lines of one text start.

    Built in one pass; a look-up costs one block, and for a line of many blocks the counts of its blocks.

    Args:
        text: the text, in code points.
        block_chars: characters of a block: small costs memory per character, large costs time per look-up and edit.
        before: blocks of another index, for what stands before the text.
        behind: likewise for what stands after it.
    """

    def __init__(
        self,
        text: str,
        *,
        block_chars: int = _BLOCK_CHARS,
        before: Sequence[_Block] = (),
        behind: Sequence[_Block] = (),
    ) -> None:
        self._block_chars = block_chars
        # Equal pieces of at most about so many characters, none ending between `\r` and `\n`.
        size, start, pieces = -(-len(text) // max(1, -(-len(text) // block_chars))), 0, list[str]()
        while len(text) - start > size:
            end = start + size
            end += text[end - 1] == "\r" and text[end] == "\n"
            pieces.append(text[start:end])
            start = end
        own = [_Block(piece, _num_line_ends(piece)) for piece in (*pieces, text[start:])]
        self._blocks = [*before, *own, *behind]
        self._starts = list(accumulate((len(block.text) for block in self._blocks), initial=0))
        self._ends_before = list(accumulate((block.num_line_ends for block in self._blocks), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def text(self) -> str:
        """The whole text, put together."""
        return "".join(block.text for block in self._blocks)

    @property
    def num_lines(self) -> int:
        """Lines in the text; one more than its line ends, so an empty text has one."""
        return self._ends_before[-1] + 1

    @property
    def num_blocks(self) -> int:
        """Blocks that the text is held in."""
        return len(self._blocks)

    def edited(self, start: int, end: int, text: str) -> LineIndex:
        """Returns the index of the text in which `text` stands in place of [start, end); shares all other blocks."""
        first, at = self._block_at(max(0, start - 1)), self._block_at(end)
        # With the block after it, so that many small edits leave no small blocks.
        last = min(at + 1, len(self._blocks) - 1)
        before = self._blocks[first].text[: start - self._starts[first]]
        behind = "".join(block.text for block in self._blocks[at : last + 1])[end - self._starts[at] :]
        return LineIndex(
            before + text + behind,
            block_chars=self._block_chars,
            before=self._blocks[:first],
            behind=self._blocks[last + 1 :],
        )

    def line_at(self, offset: int) -> int:
        """Returns the 0-based line that holds `offset`, which must lie in the text."""
        at = self._block_at(offset)
        inside = offset - self._starts[at]
        text = self._blocks[at].text
        # Between `\r` and `\n` the line has not ended.
        is_split = 0 < inside < len(text) and text[inside - 1] == "\r" and text[inside] == "\n"
        return self._ends_before[at] + _num_line_ends(text[: inside - is_split])

    def span(self, line: int) -> tuple[int, int]:
        """Returns where 0-based `line` starts and ends, its line end left out."""
        start = self._start_of(line)
        if line == self._ends_before[-1]:
            return start, self._starts[-1]
        end = self._start_of(line + 1)
        # A block never ends inside of a line end.
        at = bisect_left(self._starts, end) - 1
        tail = self._blocks[at].text[: end - self._starts[at]]
        return start, end - (2 if tail.endswith("\r\n") else 1)

    def offset(self, line: int, column: int, encoding: PositionEncoding) -> int:
        """Returns the offset of a position.

        Args:
            line: 0-based; past the last line means the end of the text.
            column: 0-based, in code units of `encoding`; past the line's end means its end, inside a character means
                before it.
            encoding: what `column` counts.
        """
        if line > self._ends_before[-1]:
            return self._starts[-1]
        start, end = self.span(max(line, 0))
        units = max(column, 0)
        if encoding is PositionEncoding.UTF32:
            return min(start + units, end)
        for part_start, part, part_units in self._parts(start, end, encoding):
            if part_units > units:
                is_plain = part_units == len(part)
                return part_start + (units if is_plain else _num_code_points(part, units, encoding))
            units -= part_units
        return end

    def position(self, offset: int, encoding: PositionEncoding) -> tuple[int, int]:
        """Returns line and column of an offset; between `\\r` and `\\n` means before both, past the end the end.

        Args:
            offset: in code points.
            encoding: what the column shall count.
        """
        offset = min(max(offset, 0), self._starts[-1])
        line = self.line_at(offset)
        start, end = self.span(line)
        return line, sum(units for _, _, units in self._parts(start, min(offset, end), encoding))

    def _block_at(self, offset: int) -> int:
        return min(bisect_right(self._starts, offset) - 1, len(self._blocks) - 1)

    def _start_of(self, line: int) -> int:
        if line == 0:
            return 0
        at = bisect_left(self._ends_before, line) - 1
        text, num_before = self._blocks[at].text, line - self._ends_before[at]
        if "\r" in text:
            return self._starts[at] + next(islice(_LINE_END.finditer(text), num_before - 1, None)).end()
        return self._starts[at] + len(text) - len(text.split("\n", num_before)[-1])

    def _parts(self, start: int, end: int, encoding: PositionEncoding) -> Iterator[tuple[int, str, int]]:
        """Yields the parts of a stretch that blocks hold: where each begins, its text, and its code units."""
        at = self._block_at(start)
        while at < len(self._blocks) and self._starts[at] < end:
            block, begin = self._blocks[at], self._starts[at]
            part = block.text[max(0, start - begin) : end - begin]
            is_whole = len(part) == len(block.text)
            if is_whole and encoding not in block.units:
                block.units[encoding] = num_units(part, encoding)
            yield max(start, begin), part, block.units[encoding] if is_whole else num_units(part, encoding)
            at += 1


def num_units(text: str, encoding: PositionEncoding) -> int:
    """Returns the code units that `encoding` needs for `text`; lone surrogates included."""
    if encoding is PositionEncoding.UTF32 or text.isascii():
        return len(text)
    return len(text.encode(_CODECS[encoding], "surrogatepass")) // _UNIT_BYTES[encoding]


def _num_line_ends(text: str) -> int:
    num = text.count("\n")
    return num + text.count("\r") - text.count("\r\n") if "\r" in text else num


def _num_code_points(line: str, units: int, encoding: PositionEncoding) -> int:
    start = 0
    while start < len(line) and (piece_units := num_units(line[start : start + _PIECE_CHARS], encoding)) <= units:
        start, units = start + _PIECE_CHARS, units - piece_units
    for index, character in enumerate(line[start : start + _PIECE_CHARS], start):
        units -= num_units(character, encoding)
        if units < 0:
            return index
    return len(line)
