"""Language id or file name -> a grammar that parses text within a time limit.

Grammars are imported on first use. Odd text, a language without a grammar and a parse that takes too
long are no faults. Independent of the use of a tree.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser, Point, Tree

# Module and function of a grammar -> the language ids and file suffixes it is for.
_NAMES_BY_GRAMMAR = {
    "tree_sitter_c.language": ("c", ".c"),
    # `.h` is C or C++; the grammar of C++ reads both.
    "tree_sitter_cpp.language": ("cpp", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx"),
    "tree_sitter_css.language": ("css", ".css"),
    "tree_sitter_go.language": ("go", ".go"),
    "tree_sitter_html.language": ("html", ".htm", ".html"),
    "tree_sitter_java.language": ("java", ".java"),
    "tree_sitter_javascript.language": ("javascript", "javascriptreact", "jsx", ".cjs", ".js", ".jsx", ".mjs"),
    "tree_sitter_json.language": ("json", "jsonc", ".json"),
    "tree_sitter_python.language": ("python", ".py", ".pyi"),
    "tree_sitter_rust.language": ("rust", ".rs"),
    "tree_sitter_typescript.language_tsx": ("typescriptreact", "tsx", ".tsx"),
    "tree_sitter_typescript.language_typescript": ("typescript", ".cts", ".mts", ".ts"),
    "tree_sitter_yaml.language": ("yaml", ".yaml", ".yml"),
}
_GRAMMAR_BY_NAME = {name: grammar for grammar, names in _NAMES_BY_GRAMMAR.items() for name in names}

_CHUNK_BYTES = 16 * 1024
# The result of `sys.getrefcount` for an object that one variable holds.
_HELD_ONCE = 2
_PIECES = (65_536, 1_024, 32, 1)

# After 253 levels of nesting the scanner of YAML writes out of bounds and the process dies
# (tree-sitter-grammars/tree-sitter-yaml issue 48). Each level takes one of these, so fewer of them are safe.
_YAML = "tree_sitter_yaml.language"
_YAML_LEVEL = re.compile(rb"[-?:](?=[\s\0]|\Z)|[|>]")
_MOST_YAML_LEVELS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A text and its tree."""

    source: bytes
    tree: Tree


class Grammars:
    """The grammars that were loaded.

    Args:
        clock: seconds that never go backwards; bounds a parse.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._grammars: dict[str, Grammar | None] = {}

    def get(self, language: str, path: str) -> Grammar | None:
        """Returns the grammar of a file; None where there is none.

        Args:
            language: LSP language id; of a compound one like `yaml.ansible` the first part counts.
            path: its suffix is used where `language` is empty.
        """
        name = language.partition(".")[0] or PurePath(path).suffix.lower()
        grammar = _GRAMMAR_BY_NAME.get(name, "")
        if grammar not in self._grammars:
            self._grammars[grammar] = _load(grammar, self._clock)
        return self._grammars[grammar]


class Grammar:
    """A parser of one language that takes no longer than it may.

    Attributes:
        name: module and function that it comes from.
    """

    def __init__(self, name: str, parser: Parser, clock: Callable[[], float]) -> None:
        self.name = name
        self._parser = parser
        self._clock = clock

    def parse(self, source: bytes, last: Parsed | None, *, budget_s: float) -> Parsed | None:
        """Parses a text.

        Args:
            source: UTF-8.
            last: an earlier version of the text, to start from its tree.
            budget_s: seconds it may take.

        Returns:
            None if it cannot be done in time.
        """
        if last is not None and last.source == source:
            return last
        if self.name == _YAML and len(_YAML_LEVEL.findall(source)) > _MOST_YAML_LEVELS:
            return None
        deadline, pieces, text = self._clock() + budget_s, list[bytes](), memoryview(source)

        def read(offset: int, _point: Point) -> bytes:
            # A slice of the whole would be the text object itself, which has other references.
            pieces.append(bytes(text[offset : offset + _CHUNK_BYTES]))
            return pieces[-1]

        def expired(_offset: int, _has_error: bool) -> bool:
            return self._clock() > deadline

        try:
            if last is None:
                tree = self._parser.parse(read, progress_callback=expired)
            else:
                tree = self._parser.parse(read, old_tree=_edited(last, source), progress_callback=expired)
        except ValueError:
            # Without this the next parse would go on where this one was stopped, in another text.
            self._parser.reset()
            return None
        finally:
            while pieces:
                piece = pieces.pop()
                # Short byte strings are shared by the interpreter and have many references.
                if _FREES_NO_PIECES and sys.getrefcount(piece) == _HELD_ONCE + 1:
                    ctypes.pythonapi.Py_DecRef(ctypes.py_object(piece))
        return Parsed(source=source, tree=tree)


def _load(name: str, clock: Callable[[], float]) -> Grammar | None:
    """Imports a grammar; None if it is not there."""
    module, _, function = name.partition(".")
    try:
        from tree_sitter import Language, Parser

        pointer: object = getattr(importlib.import_module(module), function)()
        parser = Parser(Language(pointer))
    except (ImportError, ValueError):  # ValueError: no name, or a grammar for another version of tree-sitter
        return None
    return Grammar(name, parser, clock)


def _edited(last: Parsed, source: bytes) -> Tree:
    """Returns a copy of the last tree with the changed bytes marked."""
    old, start, end = last.source, 0, 0
    most = min(len(old), len(source))
    # Large pieces first, since most of the text is alike.
    for size in _PIECES:
        while start + size <= most and old.startswith(source[start : start + size], start):
            start += size
    for size in _PIECES:
        while start + end + size <= most and old.endswith(
            source[len(source) - end - size : len(source) - end], 0, len(old) - end
        ):
            end += size
    old_end, new_end = len(old) - end, len(source) - end
    tree = last.tree.copy()
    # Row, and column in bytes.
    points = (
        (text.count(b"\n", 0, offset), offset - (text.rfind(b"\n", 0, offset) + 1))
        for text, offset in ((old, start), (old, old_end), (source, new_end))
    )
    tree.edit(start, old_end, new_end, *points)
    return tree


def _frees_no_pieces() -> bool:
    """Whether this tree-sitter keeps a reference to each piece that its read callback returns, for good.

    py-tree-sitter 0.26.1 does: twenty kilobytes for each check of a candidate in a file of that size (seen by counting
    references). Only in the version where it was seen: releasing a reference that is in use would crash the process.
    """
    try:
        version = importlib.metadata.version("tree-sitter")
    except importlib.metadata.PackageNotFoundError:
        return False
    return platform.python_implementation() == "CPython" and version == "0.26.1"


_FREES_NO_PIECES = _frees_no_pieces()
