"""Chooses holes in source text: half-open character spans whose text the model finds from what is before and after.

Knows text and its syntax; knows nothing of tokens. Shares follow the mix that an editor sees: lines, blocks, syntax
nodes (arXiv 2506.00204) and arbitrary spans.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from dgemma_engine.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHole:
    """A gap in a file: `text[start:end]` is the middle.

    Attributes:
        start: first character of the middle; where the cursor stands.
        end: one past its last character.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleMix:
    """Shares of the kinds of hole; they sum to 1.

    Attributes:
        line: rest of a line, or all of it.
        block: one to eight lines.
        syntax: arguments, expressions, statements, bodies.
        span: any characters.
    """

    line: float = 0.35
    block: float = 0.25
    syntax: float = 0.25
    span: float = 0.15

    def __post_init__(self) -> None:
        shares = (self.line, self.block, self.syntax, self.span)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise TrainingError(f"middles: line, block, syntax and span must be shares that sum to 1, got {shares}")


# Longest middle in characters: a longer one exceeds the largest slot by far.
_MAX_CHARACTERS = 600
_MAX_SPAN = 120


class SourceText:
    """A file with its line starts and syntax nodes, found once however many holes are cut into it.

    Args:
        text: all of the file.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.line_starts = [0, *accumulate(map(len, _lines(text)))][:-1]
        self._nodes: list[SourceHole] | None = None

    def line(self, index: int) -> tuple[int, int]:
        """Returns start and end of a line, its line break left out."""
        start = self.line_starts[index]
        stop = self.line_starts[index + 1] if index + 1 < len(self.line_starts) else len(self.text)
        while stop > start and self.text[stop - 1] in "\r\n":
            stop -= 1
        return start, stop

    @property
    def nodes(self) -> list[SourceHole]:
        """Syntax nodes worth a hole; none when the file does not parse."""
        if self._nodes is None:
            self._nodes = list(_syntax_holes(self.text))
        return self._nodes


def choose_hole(source: SourceText, mix: MiddleMix, random: Random) -> SourceHole | None:
    """Returns a hole, or None when the draw met nothing useful (a blank line, no syntax); the caller draws again.

    Args:
        source: the file.
        mix: shares of the kinds.
        random: every draw comes from it.
    """
    kinds: list[Callable[[SourceText, Random], SourceHole | None]] = [_line_hole, _block_hole, _syntax_hole, _span_hole]
    shares = [mix.line, mix.block, mix.syntax, mix.span]
    hole = random.choices(kinds, shares)[0](source, random)
    if hole is None or not 0 < hole.end - hole.start <= _MAX_CHARACTERS:
        return None
    return hole if source.text[hole.start : hole.end].strip() else None


def _line_hole(source: SourceText, random: Random) -> SourceHole | None:
    """From line start, from after the indent, from between two words or from anywhere, to the end of the line."""
    if not source.line_starts:
        return None
    start, end = source.line(random.randrange(len(source.line_starts)))
    line = source.text[start:end]
    indent = len(line) - len(line.lstrip())
    if indent >= len(line):
        return None
    place = random.random()
    if place < 0.15:
        offset = 0
    elif place < 0.5:
        offset = indent
    elif place < 0.8:
        offset = random.choice([indent, *(match.start() for match in re.finditer(r"(?<=\W)\w|(?<=\w)\W", line))])
    else:
        offset = random.randrange(indent, len(line))
    return SourceHole(start=start + offset, end=end)


def _block_hole(source: SourceText, random: Random) -> SourceHole | None:
    """One to eight lines, from line start or from after the first indent."""
    num_lines = random.randint(1, 8)
    if len(source.line_starts) < num_lines:
        return None
    first = random.randrange(len(source.line_starts) - num_lines + 1)
    start, _ = source.line(first)
    _, end = source.line(first + num_lines - 1)
    if random.random() < 0.6:
        line = source.text[start:end]
        start += len(line) - len(line.lstrip(" \t"))
    return SourceHole(start=start, end=end)


def _syntax_hole(source: SourceText, random: Random) -> SourceHole | None:
    return random.choice(source.nodes) if source.nodes else None


def _span_hole(source: SourceText, random: Random) -> SourceHole | None:
    start = random.randrange(len(source.text))
    return SourceHole(start=start, end=min(len(source.text), start + random.randint(1, _MAX_SPAN)))


def _syntax_holes(text: str) -> list[SourceHole]:
    """Returns the spans of argument lists, expressions, statements and bodies of at least three characters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    offsets = _Offsets(text)
    holes: list[SourceHole] = []
    for node in _walk(tree):
        if isinstance(node, ast.expr | ast.stmt):
            holes.append(offsets.span(node, node))
        if isinstance(node, ast.Call) and (arguments := [*node.args, *(word.value for word in node.keywords)]):
            open_bracket = offsets.span(node.func, node.func).end
            end = offsets.span(node, node).end - 1
            start = text.find("(", open_bracket, offsets.span(arguments[0], arguments[0]).start)
            if start >= 0:
                holes.append(SourceHole(start=start + 1, end=end))
        body: list[ast.stmt] | None = getattr(node, "body", None)
        if isinstance(body, list) and body and not isinstance(node, ast.Module):
            holes.append(offsets.span(body[0], body[-1]))
    return [hole for hole in holes if 3 <= hole.end - hole.start <= _MAX_CHARACTERS]


def _walk(root: ast.AST) -> Iterator[ast.AST]:
    """Yields all nodes but the parts of f-strings, whose positions are wrong before Python 3.12."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.JoinedStr):
            waiting.extend(ast.iter_child_nodes(node))


def _lines(text: str) -> list[str]:
    """Splits where Python does: not at form feeds and the like, as `str.splitlines` would."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


class _Offsets:
    """Line and UTF-8 column of `ast` to characters of the text."""

    def __init__(self, text: str) -> None:
        self._lines = _lines(text)
        self._starts = [0, *accumulate(map(len, self._lines))]

    def span(self, first: ast.expr | ast.stmt, last: ast.expr | ast.stmt) -> SourceHole:
        end_line, end_column = last.end_lineno or last.lineno, last.end_col_offset or 0
        return SourceHole(start=self._offset(first.lineno, first.col_offset), end=self._offset(end_line, end_column))

    def _offset(self, line: int, column: int) -> int:
        content = self._lines[line - 1]
        if not content.isascii():
            column = len(content.encode()[:column].decode(errors="ignore"))
        return self._starts[line - 1] + column
