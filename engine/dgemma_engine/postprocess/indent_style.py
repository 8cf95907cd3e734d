"""The indentation style of a document: lines -> the style that the lines around a cursor share.

Pure. Counts in columns; a style turns columns into tabs and spaces and back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dgemma_engine.postprocess.cursor_context import CursorContext, opens_block
from dgemma_engine.postprocess.lexer import Language

_LINES_ABOVE, _LINES_BELOW = 300, 100
# Columns of a tab where the document has none; any number would do, since only levels are counted.
_TAB = 4
_MIXED_TAB = 8
# Least share of the steps that the commonest must have.
_CLEAR = 0.7
_FEW = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndentStyle:
    """A way to indent.

    Attributes:
        unit: columns of one level; 0 where that is unknown.
        tab: columns that a tab stands for; 0 for a document without tabs. With `tab == unit` levels are tabs, with
            `tab > unit` tabs stand for as many spaces wherever they can.
    """

    unit: int
    tab: int

    def columns(self, blanks: str) -> int:
        """Returns how many columns tabs and spaces take."""
        return len(blanks.expandtabs(self.tab or self.unit or _TAB))

    def blanks(self, columns: int) -> str:
        """Returns the tabs and spaces that take so many columns."""
        if not self.tab:
            return " " * columns
        return "\t" * (columns // self.tab) + " " * (columns % self.tab)

    def allows(self, blanks: str) -> bool:
        """Whether the document could indent a line like this; what aligns a line after its level counts as such."""
        if not self.tab:
            return "\t" not in blanks
        spaces = blanks.lstrip("\t")
        return "\t" not in spaces and (len(spaces) < self.tab or (self.tab == self.unit and blanks[:1] == "\t"))


def style_of(around: CursorContext, answer: Sequence[str]) -> IndentStyle:
    """Returns how the lines around the cursor are indented.

    Args:
        around: the cursor's line decides where tabs and spaces are as many.
        answer: lines below the cursor's, which decide where nothing else is indented.
    """
    own = indent_of(around.before)
    lines = around.lines_above[-_LINES_ABOVE:] + around.lines_below[:_LINES_BELOW]
    if not any(line.startswith(("\t", "  ")) for line in [*lines, own]):
        lines = list(answer)
    tabbed = sum(line.startswith("\t") for line in [*lines, own])
    spaced = sum(line.startswith("  ") and not line.lstrip().startswith("*") for line in [*lines, own])
    if min(tabbed, spaced) > _FEW * (tabbed + spaced):
        if not any(line.startswith(" " * _MIXED_TAB) for line in lines):
            return IndentStyle(unit=_unit(lines, around.language, tab=_MIXED_TAB), tab=_MIXED_TAB)
        tabbed, spaced = (1, 0) if own.startswith("\t") else (0, 1)
    if tabbed > spaced:
        return IndentStyle(unit=_TAB, tab=_TAB)
    return IndentStyle(unit=_unit(lines, around.language, tab=_MIXED_TAB), tab=0)


def indent_of(line: str) -> str:
    """Returns the tabs and spaces that a line begins with."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(lines: Sequence[str], language: Language, *, tab: int) -> int:
    """Returns by how many columns a block is indented, or 0 where that is not clear."""
    steps: Counter[int] = Counter()
    before = ""
    for line in lines:
        if not line.strip():
            continue
        step = len(indent_of(line).expandtabs(tab)) - len(indent_of(before).expandtabs(tab))
        if step > 0 and (not language.has_depth or opens_block(before, language)):
            steps[step] += 1
        before = line
    if not steps:
        return 0
    unit, count = max(steps.items(), key=lambda step: (step[1], -step[0]))
    return unit if count >= _CLEAR * steps.total() else 0
