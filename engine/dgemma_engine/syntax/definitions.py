"""A file and names -> their definitions in it without bodies: signatures, fields, first lines of documentation.

Finds definitions through the file's syntax tree, outermost ones and those in guards and namespaces. The caller chooses
the file. A language without a grammar and a file that cannot be parsed in time define nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from dgemma_engine.syntax.parsers import Grammars

if TYPE_CHECKING:
    from tree_sitter import Node

_MOST_BYTES = 256 * 1024
_BUDGET_S = 0.1
_MOST_LINES = 40
_SHORT_LINES = 6
_MOST_NODES = 20_000
# Nodes that contain definitions: guards, exports, decorators, namespaces, declarations of several names.
_WRAPPERS = frozenset(
    {
        *("export_statement", "decorated_definition", "expression_statement", "declaration", "type_declaration"),
        *("lexical_declaration", "variable_declaration", "const_declaration", "var_declaration", "type_definition"),
        *("if_statement", "else_clause", "try_statement", "except_clause", "block", "preproc_ifdef", "preproc_if"),
        *("preproc_else", "linkage_specification", "namespace_definition", "declaration_list", "ambient_declaration"),
        *("internal_module", "statement_block", "template_declaration", "var_spec_list"),
    }
)
# A wrapper of one definition is part of it.
_WHOLE = frozenset(
    {
        *("export_statement", "decorated_definition", "expression_statement", "declaration", "type_declaration"),
        *("lexical_declaration", "variable_declaration", "type_definition", "template_declaration"),
    }
)
_DOCSTRING = ('"""', "'''")
_NAME_FIELDS = ("name", "left", "declarator")
_CONTAINERS = ("class", "struct", "interface", "trait", "impl", "enum", "record", "union")


class DefinitionFinder:
    """Finds definitions; grammars are kept.

    Args:
        clock: seconds that never go backwards; bounds a parse.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._grammars = Grammars(clock=clock)

    def find(self, text: str, names: Collection[str], *, language: str, path: str) -> dict[str, str]:
        """Returns the definitions of `names`, in the order of the file.

        Args:
            text: the whole file; one of more than 256 KiB defines nothing.
            names: whose definitions are wanted.
            language: LSP language id; may be empty.
            path: of the file; its suffix tells the language where `language` is empty.

        Returns:
            Definition by name: signatures, one-line fields and the first line of documentation. What belongs to one
            name in several places (a type and its methods) is joined.
        """
        source = text.encode("utf-8", "replace")
        grammar = self._grammars.get(language, path)
        if grammar is None or not names or len(source) > _MOST_BYTES:
            return {}
        parsed = grammar.parse(source, None, budget_s=_BUDGET_S)
        if parsed is None:
            return {}
        wanted = frozenset(names)
        found: dict[str, list[str]] = {}
        for name, node, whole in _definitions(parsed.tree.root_node):
            if name in wanted:
                lines = found.setdefault(name, [])
                lines += _outline(node, whole, source)[: max(0, _MOST_LINES - len(lines))]
        return {name: "\n".join(lines) for name, lines in found.items()}


def _definitions(root: Node) -> Iterator[tuple[str, Node, Node]]:
    """Yields each outermost definition: name, node, and the node with what belongs to it (decorators, `export`)."""
    waiting: list[tuple[Node, Node | None]] = [(node, None) for node in reversed(root.named_children)]
    visited = 0
    while waiting and visited < _MOST_NODES:
        visited += 1
        node, whole = waiting.pop()
        if node.type not in _WRAPPERS or (node.type == "declaration" and _name(node)):
            if name := _name(node):
                yield name, node, whole or node
            continue
        inner = [child for child in node.named_children if child.type != "decorator"]
        outer = whole or node if node.type in _WHOLE and len(inner) == 1 else None
        waiting.extend((child, outer) for child in reversed(inner))


def _name(node: Node) -> str:
    """Returns the name that a node defines, or nothing."""
    if node.type.startswith("import"):
        return ""
    if node.type == "impl_item":
        return _text(node.child_by_field_name("type")).partition("<")[0]
    if node.type == "method_declaration" and (receiver := node.child_by_field_name("receiver")) is not None:
        # Go: a method belongs to its type.
        return _text(receiver).strip("()").split()[-1].lstrip("*")
    for field in _NAME_FIELDS:
        inner = node.child_by_field_name(field)
        # C hides the name under pointers and parameters.
        while inner is not None and (deeper := inner.child_by_field_name("declarator")) is not None:
            inner = deeper
        if inner is not None:
            return _text(inner)
    return ""


def _outline(node: Node, whole: Node, source: bytes) -> list[str]:
    """Returns the lines of a definition that a caller needs."""
    body = node.child_by_field_name("body")
    value = node.child_by_field_name("value")
    if body is None and value is not None:
        # JavaScript: `const f = (a) => { ... }`.
        body = value.child_by_field_name("body")
    if body is None or whole.end_point[0] - whole.start_point[0] < _SHORT_LINES:
        return _lines(source, whole.start_byte, whole.end_byte)
    lines = _lines(source, whole.start_byte, body.start_byte)
    if any(word in node.type for word in _CONTAINERS):
        for child in body.named_children:
            lines += _member(child, source)
    else:
        lines += _first_docstring_line(body, source)
    return lines


def _member(node: Node, source: bytes) -> list[str]:
    """Returns the signature of a method, or a field of one line."""
    inner = node.child_by_field_name("definition") or node
    body = inner.child_by_field_name("body")
    end = node.end_byte if body is None else body.start_byte
    start = source.rfind(b"\n", 0, node.start_byte) + 1
    if source[start : node.start_byte].strip():
        start = node.start_byte
    lines = _lines(source, start, end)
    if body is None and len(lines) > 1:
        return lines[:1] if _text(node).startswith(_DOCSTRING) else []
    return lines


def _first_docstring_line(body: Node, source: bytes) -> list[str]:
    first = body.named_children[0] if body.named_children else None
    if first is None or first.type != "expression_statement" or not _text(first).startswith(_DOCSTRING):
        return []
    start = source.rfind(b"\n", 0, first.start_byte) + 1
    return _lines(source, start, first.end_byte)[:1]


def _lines(source: bytes, start: int, end: int) -> list[str]:
    return source[start:end].decode("utf-8", "replace").rstrip().splitlines()


def _text(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode("utf-8", "replace")
