"""Real Python source -> holes to show completions in: a piece of a real line or body taken out, and remembered.

Each kind of hole is a pattern that real code of any Python version has plenty of; the first file that fits supplies it.
Pure: gets texts, returns texts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dgemma_lsp.commands.file_location import FilePosition

_ASTRAL = re.compile(r"[\U00010000-\U0010FFFF]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoHole:
    """One cursor position with its surroundings.

    Attributes:
        kind: what kind of position it is, for people.
        place: file, text without the truth, and the cursor.
        truth: what stood at the cursor.
        note: what was changed in the file besides taking the truth out; empty for nothing.
    """

    kind: str
    place: FilePosition
    truth: str
    note: str = ""


def find_holes(sources: Mapping[Path, str]) -> list[DemoHole]:
    """Returns one hole of each kind, each from another place; a kind that no source has is left out.

    Args:
        sources: texts of Python files, the preferred first.
    """
    used: set[tuple[Path, int]] = set()
    holes: list[DemoHole] = []
    for kind, find in _KINDS.items():
        hole = _first(kind, find, sources, used)
        if hole is None and kind == _ASTRAL_KIND:
            hole = _made_astral(sources)
        if hole is not None:
            used.add((hole.place.path, hole.place.offset))
            holes.append(hole)
    return holes


def _first(kind: str, find: _Find, sources: Mapping[Path, str], used: set[tuple[Path, int]]) -> DemoHole | None:
    # A file that has shown one hole already is asked again only when no other has this kind.
    seen = {path for path, _ in used}
    for path, text in sorted(sources.items(), key=lambda item: item[0] in seen):
        for start, end in find(text):
            if (path, start) not in used:
                place = FilePosition(path=path, text=text[:start] + text[end:], offset=start)
                return DemoHole(kind=kind, place=place, truth=text[start:end])
    return None


_Find = Callable[[str], Iterable[tuple[int, int]]]


def _by_pattern(pattern: str) -> _Find:
    """Returns what finds the spans of the group `truth`."""
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda text: (match.span("truth") for match in compiled.finditer(text))


def _function_bodies(text: str) -> Iterable[tuple[int, int]]:
    """Yields the bodies of short functions, after their first line's indentation."""
    for node in _functions(text):
        body = node.body[0]
        if len(node.body) <= 2 and isinstance(body, ast.Return | ast.Assign) and body.lineno > node.lineno:
            yield _span(text, body.lineno, body.col_offset, node.end_lineno)


def _whole_functions(text: str) -> Iterable[tuple[int, int]]:
    """Yields short functions at the left margin that stand between two others."""
    tops = ast.parse(text).body
    for before, node, after in zip(tops, tops[1:], tops[2:], strict=False):
        if all(isinstance(top, ast.FunctionDef) for top in (before, node, after)) and not _decorated(node):
            start, end = _span(text, node.lineno, 0, node.end_lineno)
            if text.count("\n", start, end) < 8:
                yield start, end


def _file_ends(text: str) -> Iterable[tuple[int, int]]:
    """Yields the last line's text after its indentation, where the file is code to its end."""
    start = text.rstrip().rfind("\n") + 1
    line = text[start:].rstrip()
    if line.strip() and not line.lstrip().startswith(("#", '"', "'", ")", "]", "}")):
        yield start + len(line) - len(line.lstrip()), len(text)


def _astral_lines(text: str) -> Iterable[tuple[int, int]]:
    """Yields the rest of lines behind their first astral character."""
    for match in _ASTRAL.finditer(text):
        line_end = text.find("\n", match.end())
        if 3 <= line_end - match.end() <= 60:
            yield match.end(), line_end


def _made_astral(sources: Mapping[Path, str]) -> DemoHole | None:
    hole = _first(_ASTRAL_KIND, _by_pattern(r"^ +\w+ = (?P<truth>\w+\(\w+\))$"), sources, set())
    if hole is None:
        return None
    place = hole.place
    line_start = place.text.rfind("\n", 0, place.offset) + 1
    name_start = line_start + len(place.text[line_start:]) - len(place.text[line_start:].lstrip(" "))
    # No identifier may hold an astral symbol, but many astral letters are fine: U+1D465 is an italic x.
    text = place.text[:name_start] + "\U0001d465 = " + place.text[name_start:]
    made = FilePosition(path=place.path, text=text, offset=place.offset + len("\U0001d465 = "))
    return DemoHole(kind=hole.kind, place=made, truth=hole.truth, note="`\U0001d465 = ` put before the line's text")


def _functions(text: str) -> Iterable[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))


def _decorated(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and bool(node.decorator_list)


def _span(text: str, line: int, column_bytes: int, end_line: int | None) -> tuple[int, int]:
    """Returns offsets from a 1-based line and the column that `ast` counts in UTF-8 bytes to the end of `end_line`."""
    lines = text.split("\n")
    column = len(lines[line - 1].encode()[:column_bytes].decode())
    end_line = end_line or line
    start = sum(len(before) + 1 for before in lines[: line - 1]) + column
    return start, sum(len(before) + 1 for before in lines[:end_line]) - 1


_ASTRAL_KIND = "a line with an astral character before the cursor"
_KINDS: Mapping[str, _Find] = {
    "whole line": _by_pattern(r"^ {8}if [^\n]+:\n {12}(?P<truth>[a-z_]\w* = [^\n#(]{3,40})\n {8}\S"),
    "rest of line": _by_pattern(r"^ +for \w+ in (?P<truth>\w+(\.\w+)*\(?\w*\)?:)$"),
    "inside call brackets": _by_pattern(r"^ +\w+ = \w+(\.\w+)*\((?P<truth>\w+, \w+)\)$"),
    "empty body": _function_bodies,
    "docstring": _by_pattern(r"^ +def \w+\([^\n]*\):\n +\"\"\"(?P<truth>[A-Z][^\"\n]{15,70})\"\"\"$"),
    "between two functions": _whole_functions,
    "end of file": _file_ends,
    _ASTRAL_KIND: _astral_lines,
}
