"""The rules of shaping one by one, where a case of `shapes/` would not show which rule applied."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dgemma_engine.postprocess.brackets import with_closed_ends, without_closed_twice
from dgemma_engine.postprocess.cursor_context import CursorContext, extent_of
from dgemma_engine.postprocess.indent_style import IndentStyle, style_of
from dgemma_engine.postprocess.lexer import language_named, read
from dgemma_engine.postprocess.shape import shape_completion
from dgemma_engine.protocol.messages import Extent

ROOT = Path(__file__).parents[3]


def around_cursor(language: str, marked: str) -> CursorContext:
    before, after = marked.split("|")
    return CursorContext.of(before, after, language)


@pytest.mark.parametrize(
    ("language", "marked", "extent"),
    [
        ("python", "def f(\n    a,\n) -> int:|\n", Extent.BLOCK),
        ("python", "else:|", Extent.BLOCK),
        ("python", "if x:  # why|", Extent.BLOCK),
        ("python", "x: int|", Extent.LINE),
        ("python", "x[1:|", Extent.LINE),
        ("python", "x = {|}", Extent.LINE),
        ("javascript", "if (x) {|}", Extent.BLOCK),
        ("javascript", "f(() => {|});", Extent.BLOCK),
        ("javascript", "f({|}, x)", Extent.LINE),
        ("javascript", "case 1:|", Extent.BLOCK),
        ("javascript", "x = {a:|", Extent.LINE),
        ("typescript", "let a:|", Extent.LINE),
        ("go", "default:|", Extent.BLOCK),
        ("rust", "x =>|", Extent.LINE),
        ("c", "public:|", Extent.BLOCK),
        ("c", "x = '{|", Extent.LINE),
        ("java", "foo(|", Extent.BLOCK),
        ("html", "<ul>|", Extent.BLOCK),
        ("html", "</ul>|", Extent.LINE),
        ("html", "<br/>|", Extent.LINE),
        ("html", "<a {|", Extent.LINE),
        ("yaml", "a:|", Extent.BLOCK),
        ("yaml", "a: b|", Extent.LINE),
        ("markdown", "```sh|", Extent.BLOCK),
        ("markdown", "See:|", Extent.LINE),
        ("", "x:|", Extent.BLOCK),
    ],
)
def test_extent_at_the_cursor(language: str, marked: str, extent: Extent) -> None:
    around = around_cursor(language, marked)
    assert extent_of(around.before, around.rest, language) is extent


@pytest.mark.parametrize(
    ("language", "text", "closing", "opening", "inside"),
    [
        ("python", "f(a[0])", "", "", ""),
        ("python", ")(", ")", "(", ""),
        ("python", "([)", "", "", ""),
        ("python", "'('  # (\n[", "", "[", ""),
        ("python", "'(", "", "", "'"),
        ("python", "'(\n(", "", "(", ""),
        ("python", "'\\'(", "", "", "'"),
        ("python", "''", "", "", ""),
        ("python", '"""(\n"(', "", "", '"""'),
        ("python", '"""(\n"""(', "", "(", ""),
        ("python", "# (", "", "", "#"),
        ("javascript", "`(\n${(", "", "", "`"),
        ("javascript", "/* (\n */ (", "", "(", ""),
        ("javascript", "/* (", "", "", "/"),
        ("javascript", "a / (b", "", "(", ""),
        ("rust", "&'a (", "", "(", ""),
        ("yaml", "it's (", "", "(", ""),
        ("yaml", "a: 'it (", "", "", "'"),
        ("html", "it's (", "", "", ""),
        ("markdown", "(`[", "", "", ""),
        ("plaintext", "(", "", "", ""),
    ],
)
def test_read_finds_unmatched_brackets_and_an_open_string(
    language: str, text: str, closing: str, opening: str, inside: str
) -> None:
    reading = read(text, language_named(language))
    assert "".join(bracket.sign for bracket in reading.closing) == closing
    assert "".join(bracket.sign for bracket in reading.opening) == opening
    assert reading.inside == inside


@pytest.mark.parametrize(
    ("marked", "unit", "tab"),
    [
        ("|", 0, 0),
        ("if a:\n    b\n|", 4, 0),
        ("if a:\n   b\n|", 3, 0),
        ("if a:\n  b\nif a:\n    b\n|", 0, 0),
        ("f(a,\n    b)\nif a:\n  b\n|", 2, 0),
        ("if a:\n\tb\n|", 4, 4),
        ("if a:\n    if b:\n\tc\n    |", 4, 8),
        ("if a:\n        b\nif a:\n\tb\n\t|", 4, 4),
        ("if a:\n        b\nif a:\n\tb\n        |", 8, 0),
        ("\t|", 4, 4),
    ],
)
def test_indentation_style_of_a_document(marked: str, unit: int, tab: int) -> None:
    assert style_of(around_cursor("python", marked), []) == IndentStyle(unit=unit, tab=tab)


def test_document_without_indentation_takes_the_style_of_the_answer() -> None:
    around = around_cursor("go", "func f() {|")
    assert style_of(around, ["\treturn", "}"]) == IndentStyle(unit=4, tab=4)


def test_brackets_are_counted_only_where_the_document_is_seen_from_its_start() -> None:
    long = "{\n" + "a;\n" * 30_000
    for marked, seen in ((f"b|\n{long}", True), (f"{long}b|\n", False)):
        around = around_cursor("javascript", marked)
        assert around.reaches_start is seen
        assert without_closed_twice("c}", around) == ("c" if seen else "c}")


def test_bracket_that_the_suffix_closes_stays_open() -> None:
    around = around_cursor("javascript", "x = |\n)")
    assert with_closed_ends("f(a", around) == "f(a"


@pytest.mark.parametrize("seed", range(4))
def test_correct_code_is_left_unchanged(seed: int) -> None:
    """The true middle at a random place of real code is shown unchanged, or a prefix of it."""
    draw = random.Random(seed)
    for path in sorted((ROOT / "dgemma_lsp").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        for _ in range(6):
            first = draw.randrange(len(lines))
            last = min(len(lines), first + draw.randrange(1, 8))
            start = sum(map(len, lines[:first])) + len(lines[first]) - len(lines[first].lstrip(" "))
            end = max(start, sum(map(len, lines[:last])) - 1)
            truth = text[start:end]
            around = CursorContext.of(text[:start], text[end:], "python")
            shape = shape_completion(truth, around, extent_of(around.before, around.rest, "python"))
            assert shape.covered == 0, "nothing that follows is replaced"
            assert truth.startswith(shape.text), f"{path.name}, line {first + 1}"
