"""Pieces of a text that a parser reads, freed when it has read them, also by the tree-sitter that forgets to.

py-tree-sitter 0.26.1 keeps a reference to each piece that its read callback returns, for good: twenty kilobytes for
each check of a candidate in a file of that size (seen by counting references). A later version may need none of this.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import sys

# Only where it was seen: to give back a reference that is in use would end the process.
_FORGETFUL = frozenset({"0.26.1"})
# What `sys.getrefcount` says of an object that one variable holds.
_HELD_ONCE = 2


class LentBytes:
    """The pieces of one parse.

    Args:
        source: the text.
    """

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._lent: list[bytes] = []

    def piece(self, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes from `offset` on, for the parser."""
        # A slice of all of it would be the text itself, which others hold too.
        piece = bytes(memoryview(self._source)[offset : offset + size])
        self._lent.append(piece)
        return piece

    def take_back(self) -> None:
        """Frees what was lent; the parse must be over."""
        while self._lent:
            piece = self._lent.pop()
            # Short pieces are shared by everybody and have many references.
            if IS_FORGETFUL and sys.getrefcount(piece) == _HELD_ONCE + 1:
                ctypes.pythonapi.Py_DecRef(ctypes.py_object(piece))


def _is_forgetful() -> bool:
    try:
        version = importlib.metadata.version("tree-sitter")
    except importlib.metadata.PackageNotFoundError:
        return False
    return platform.python_implementation() == "CPython" and version in _FORGETFUL


IS_FORGETFUL = _is_forgetful()
