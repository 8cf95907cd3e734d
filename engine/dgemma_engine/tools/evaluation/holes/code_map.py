"""Where a source text is prose (comments, strings over several lines) and where its brackets are, in most languages.

One pass with a pattern of strings, comments and brackets, so that a bracket in a string does not count. It needs no
grammar and may err where a language's strings are unlike these; a hole chosen by it is then uninteresting, not wrong.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from dgemma_engine.tools.corpus.middles import SourceHole
from dgemma_engine.tools.evaluation.holes.task import PYTHON

_HASH_LANGUAGES = frozenset({PYTHON, "ruby", "shellscript", "yaml", "toml", "perl", "r", "elixir"})
_STRINGS = r'"""(?:\\.|[^\\])*?"""' + r"|'''(?:\\.|[^\\])*?'''" + r'|"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"
_BRACKETS = r"[()\[\]{}]"
_HASH = re.compile(rf"(?P<prose>#[^\n]*)|{_STRINGS}|{_BRACKETS}", re.DOTALL)
_SLASHES = re.compile(rf"(?P<prose>//[^\n]*|/\*.*?\*/)|{_STRINGS}|`(?:\\.|[^`\\])*`|{_BRACKETS}", re.DOTALL)
_PARTNERS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeMap:
    """What a text consists of.

    Attributes:
        prose: spans of comments and of strings that are quoted thrice or run over lines, in order.
        insides: spans between matching brackets, the brackets left out.
    """

    prose: tuple[SourceHole, ...]
    insides: tuple[SourceHole, ...]

    @classmethod
    def of(cls, text: str, language: str) -> CodeMap:
        """Reads a text.

        Args:
            text: all of a file.
            language: LSP language id; it decides how comments begin.
        """
        prose: list[SourceHole] = []
        insides: list[SourceHole] = []
        waiting: list[tuple[str, int]] = []
        for match in (_HASH if language in _HASH_LANGUAGES else _SLASHES).finditer(text):
            piece = match.group()
            if match["prose"] or "\n" in piece or piece.startswith(('"""', "'''")):
                prose.append(SourceHole(start=match.start(), end=match.end()))
            elif piece in "([{":
                waiting.append((piece, match.end()))
            elif piece in _PARTNERS and waiting:
                bracket, start = waiting.pop()
                if bracket == _PARTNERS[piece]:
                    insides.append(SourceHole(start=start, end=match.start()))
                else:
                    # Mismatched: whatever is open cannot be trusted to have a partner.
                    waiting.clear()
        return cls(prose=tuple(prose), insides=tuple(insides))

    def is_code(self, position: int) -> bool:
        """Whether the character at `position` stands outside all prose."""
        before = bisect_right(self.prose, position, key=lambda span: span.start)
        return not before or position >= self.prose[before - 1].end
