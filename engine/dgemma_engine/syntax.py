"""A document with a hole and a candidate text -> how many syntax errors the text adds to the document.

Keeps the last tree of a few documents, so that a keystroke or a candidate costs an incremental parse. Knows grammars
and text; knows no tokens, no model and no editor. Odd text, a language without a grammar and a parse that takes too
long are no faults: then nothing is known and every candidate passes.
"""

from __future__ import annotations

import bisect
import importlib
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from dgemma_engine.messages import Context

if TYPE_CHECKING:
    from tree_sitter import Node, Parser, Point, Tree

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

_CHARS_EACH_SIDE = 64 * 1024
_JUMP = _CHARS_EACH_SIDE // 4
_CHARS_KEPT = 4_000
_CHUNK_BYTES = 16 * 1024
_MOST_NODES = 20_000
# Broken text can take minutes (256 KiB of `a:` as CSS: 110 s); 256 KiB of good Python take 70 ms, an edit of it 6 ms.
_DOCUMENT_BUDGET_S = 0.25
_CANDIDATE_BUDGET_S = 0.05

# Behind 253 levels of nesting the scanner of YAML writes out of bounds and the process dies
# (tree-sitter-grammars/tree-sitter-yaml issue 48). Each level takes one of these, so fewer of them are safe.
_YAML = "tree_sitter_yaml.language"
_YAML_LEVEL = re.compile(rb"[-?:](?=[\s\0]|\Z)|[|>]")
_MOST_YAML_LEVELS = 240

# A line that does not begin inside a block, a bracket or a string that was opened above it.
_OUTERMOST_LINE = re.compile(r"^[^\s)\]}\"'`*]", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    """A text and its tree."""

    source: bytes
    tree: Tree


class SyntaxCheck:
    """How candidates change the syntax errors of one document with a hole; made by `SyntaxStore.check`.

    Attributes:
        num_errors: errors with nothing in the hole; 0 where nothing is known.
    """

    def __init__(self, grammar: _Grammar | None, before: bytes, after: bytes, document: _Parsed | None) -> None:
        self._grammar = grammar
        self._before = before
        self._after = after
        self._document = document
        self.num_errors = 0 if document is None else _num_errors(document.tree)

    @property
    def known(self) -> bool:
        """Whether the document could be parsed; if not, no candidate adds errors."""
        return self._document is not None

    def added_errors(self, text: str) -> int:
        """Returns the document's errors with `text` in the hole minus its errors with nothing there.

        Args:
            text: a candidate.

        Returns:
            At most 0 for a text that breaks nothing. 0 too where nothing is known, or if the parse takes too long.
        """
        if self._grammar is None or self._document is None or not text:
            return 0
        source = self._before + text.encode("utf-8", "replace") + self._after
        parsed = self._grammar.parse(source, self._document, budget_s=_CANDIDATE_BUDGET_S)
        return 0 if parsed is None else _num_errors(parsed.tree) - self.num_errors


class SyntaxStore:
    """The last tree of each of a few documents, least recently used out.

    Args:
        num_documents: trees kept; 0 keeps none, and every check parses the document anew.
        clock: seconds that never go backwards; bounds a parse.
    """

    def __init__(self, *, num_documents: int = 8, clock: Callable[[], float] = time.perf_counter) -> None:
        if num_documents < 0:
            raise ValueError(f"{num_documents=} must not be negative")
        self._num_documents = num_documents
        self._clock = clock
        self._grammars: dict[str, _Grammar | None] = {}
        self._documents: OrderedDict[tuple[str, str], _Parsed] = OrderedDict()

    def check(self, context: Context) -> SyntaxCheck:
        """Parses the document with nothing in the hole.

        Args:
            context: document, text around the hole, language id and path. A non-empty language id decides; the
                path's suffix is asked without one. Of a text of more than 64 Ki characters on one side of the hole only
                the whole lines near the hole are parsed.
        """
        name = _grammar_name(context)
        grammar = self._grammar(name)
        before, after = _near_hole(context)
        last = self._documents.pop((context.document, name), None)
        document = None if grammar is None else grammar.parse(before + after, last, budget_s=_DOCUMENT_BUDGET_S)
        if document is not None:
            self._documents[context.document, name] = document
            while len(self._documents) > self._num_documents:
                self._documents.popitem(last=False)
        return SyntaxCheck(grammar, before, after, document)

    def _grammar(self, name: str) -> _Grammar | None:
        if name not in self._grammars:
            self._grammars[name] = _load(name, self._clock)
        return self._grammars[name]


class _Grammar:
    """A parser of one language that takes no longer than it may."""

    def __init__(self, name: str, parser: Parser, clock: Callable[[], float]) -> None:
        self._name = name
        self._parser = parser
        self._clock = clock

    def parse(self, source: bytes, last: _Parsed | None, *, budget_s: float) -> _Parsed | None:
        """Parses `source`, starting from the document's `last` tree; None if it cannot be done in time."""
        if last is not None and last.source == source:
            return last
        if self._name == _YAML and len(_YAML_LEVEL.findall(source)) > _MOST_YAML_LEVELS:
            return None
        deadline = self._clock() + budget_s

        def read(offset: int, _point: Point) -> bytes:
            return source[offset : offset + _CHUNK_BYTES]

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
        return _Parsed(source=source, tree=tree)


def _grammar_name(context: Context) -> str:
    """Returns the grammar that the language id asks for, of a compound one like `yaml.ansible` its first part."""
    name = context.language.partition(".")[0] or PurePath(context.path).suffix.lower()
    return _GRAMMAR_BY_NAME.get(name, "")


def _load(name: str, clock: Callable[[], float]) -> _Grammar | None:
    """Imports a grammar; None if it is not there."""
    module, _, function = name.partition(".")
    try:
        from tree_sitter import Language, Parser

        pointer: object = getattr(importlib.import_module(module), function)()
        parser = Parser(Language(pointer))
    except (ImportError, ValueError):  # ValueError: no name, or a grammar for another version of tree-sitter
        return None
    return _Grammar(name, parser, clock)


def _edited(last: _Parsed, source: bytes) -> Tree:
    """Returns a copy of the last tree that knows which bytes changed."""
    old = last.source
    start = _most(min(len(old), len(source)), lambda count: old[:count] == source[:count])
    end = _most(min(len(old), len(source)) - start, lambda count: old.endswith(source[len(source) - count :]))
    old_end, new_end = len(old) - end, len(source) - end
    tree = last.tree.copy()
    tree.edit(start, old_end, new_end, _point(old, start), _point(old, old_end), _point(source, new_end))
    return tree


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """Returns the largest count up to `limit` that `holds`, given that it holds for every smaller one."""
    return bisect.bisect_left(range(1, limit + 1), True, key=lambda count: not holds(count))


def _point(source: bytes, offset: int) -> tuple[int, int]:
    """Returns row and column in bytes."""
    return source.count(b"\n", 0, offset), offset - (source.rfind(b"\n", 0, offset) + 1)


def _num_errors(tree: Tree) -> int:
    """Counts what the parser skipped and what it made up, in at most so many nodes off the tree's start."""
    num_errors = 0
    nodes: list[Node] = [tree.root_node]
    visited = 0
    while nodes and visited < _MOST_NODES:
        visited += 1
        node = nodes.pop()
        num_errors += node.is_error or node.is_missing
        if node.has_error:
            nodes.extend(reversed(node.children))
    return num_errors


def _near_hole(context: Context) -> tuple[bytes, bytes]:
    """Returns the whole blocks before and behind the hole that are near enough, in UTF-8.

    Begun inside a docstring, all code is string and all strings are code; so the cuts are put at outermost lines.
    """
    before, after = context.prefix, context.suffix[:_CHARS_EACH_SIDE]
    # In jumps: most keystrokes leave the cut alone.
    far = max(0, len(before) - _CHARS_EACH_SIDE) // _JUMP * _JUMP
    # Whoever sent the text may have cut it too: a file does not begin inside a block, and where it ends is not known.
    if far or (len(before) > _CHARS_KEPT and before[:1].isspace()):
        outermost = _OUTERMOST_LINE.search(before, far)
        before = before[outermost.start() if outermost else far :]
    if last := deque(_OUTERMOST_LINE.finditer(after, max(_CHARS_KEPT, len(after) - _JUMP)), maxlen=1):
        after = after[: last[0].start()]
    # A lone surrogate becomes a question mark.
    return before.encode("utf-8", "replace"), after.encode("utf-8", "replace")
