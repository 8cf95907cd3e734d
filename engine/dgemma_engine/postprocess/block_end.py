"""Finds, token by token, where a middle leaves its block; cuts an unfinished middle to whole lines.

Counts indentation, for any language. Text after that line would be cut, so it need not be generated.
"""

from __future__ import annotations

from collections.abc import Callable

from dgemma_engine.postprocess.extent import columns

_TAB = 8
_CLOSERS = frozenset(")]}")


class BlockEnd:
    """Called with the tokens of one middle in their order.

    A line further out than the one that the middle began on, or than it may go, ends it, unless it begins with what
    closes a bracket. On the outermost level a new paragraph ends it, once something stood deeper there.

    Args:
        prefix: text before the hole.
        text_of: text of a token; None for one that has none.
        least_column: least indentation of lines; -1 is that of the block that the hole is in.
    """

    def __init__(self, prefix: str, text_of: Callable[[int], str | None], *, least_column: int = -1) -> None:
        own = _least_column(prefix)
        self._least = own if least_column < 0 else min(own, least_column)
        self._is_there = self._least == own
        self._text_of = text_of
        self._column = 0
        self._is_indent = False
        self._num_breaks = 0
        self._was_deeper = False

    def __call__(self, token_id: int) -> bool:
        """Returns whether a token begins a line outside the block; it and later ones are not part of the middle."""
        for character in self._text_of(token_id) or "":
            if character == "\n":
                self._column, self._is_indent = 0, True
                self._num_breaks += 1
            elif self._is_indent and character in " \t":
                self._column += 1 if character == " " else _TAB - self._column % _TAB
            elif self._is_indent:
                if self._leaves(character):
                    return True
                self._is_there |= self._column <= self._least
                self._was_deeper |= self._is_there and self._column > self._least
                self._is_indent, self._num_breaks = False, 0
        return False

    def _leaves(self, character: str) -> bool:
        if character in _CLOSERS:
            return False
        is_paragraph = self._num_breaks > 1 and self._was_deeper and not self._least
        return self._column < self._least or (is_paragraph and not self._column)


def whole_part(text: str, prefix: str) -> str:
    """Cuts a middle that reached its token limit before its last paragraph, or its last line if it has one paragraph.

    Args:
        text: the middle.
        prefix: text before the hole.
    """
    lines, least = text.split("\n"), _least_column(prefix)
    for index in range(len(lines) - 1, 0, -1):
        if lines[index].strip() and not lines[index - 1].strip() and columns(lines[index]) <= least:
            return "\n".join(lines[:index]).rstrip()
    return "\n".join(lines[:-1]).rstrip()


def _least_column(prefix: str) -> int:
    """Returns the least indentation of the block: that of the hole's line, or more than that of the text before it."""
    line = prefix[prefix.rfind("\n") + 1 :]
    return columns(line) + bool(line.strip())
