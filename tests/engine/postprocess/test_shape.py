from __future__ import annotations

import pytest
from dgemma_engine.postprocess.brackets import num_unbalanced
from dgemma_engine.postprocess.cursor_context import CursorContext, extent_of
from dgemma_engine.postprocess.shape import ShapedText, num_covered, shape_completion, without_covered
from hypothesis import given
from hypothesis import strategies as st


def shaped(prefix: str, suffix: str, middle: str) -> ShapedText:
    around = CursorContext.of(prefix, suffix, "python")
    return shape_completion(middle, around, extent_of(around.before, around.rest, "python"))


def check(marked: str, middle: str, expected: str | None) -> None:
    """Checks the text with the shaped `middle` inserted at `|`; None if nothing is shown."""
    prefix, suffix = marked.split("|")
    shape = shaped(prefix, suffix, middle)
    assert (prefix + shape.text + suffix[shape.covered :] if shape.text else None) == expected


@pytest.mark.parametrize(
    ("marked", "middle", "expected"),
    [
        ("foo(|)", "a, b", "foo(a, b)"),
        ("foo(|)", "a, b)", "foo(a, b)"),
        ("foo(|)", "bar(x)", "foo(bar(x))"),
        ("foo(|)", "bar(x))", "foo(bar(x))"),
        ("foo(|)", "a):", "foo(a):"),
        ("if foo(|):", "a):", "if foo(a):"),
        ("foo(|", "a)", "foo(a)"),
        ("x = [|]", "1, 2]", "x = [1, 2]"),
        ("x = {'a': [|]}", "1]}", "x = {'a': [1]}"),
        ('print("|")', 'hello"', 'print("hello")'),
        ('print("|")', 'hello")', 'print("hello")'),
        ('print("|")', "hello", 'print("hello")'),
        ("print(|)", '")"', 'print(")")'),
        ("a = | + c", "b + c", "a = b + c"),
        ("a = | + c", "b", "a = b + c"),
        ("    b|)", "ar)", "    bar)"),
        ("f(a|, b)", ".x", "f(a.x, b)"),
        ("f(a|, b)", ".x, b)", "f(a.x, b)"),
        ("|\n", "x = 1\ny = 2", "x = 1\ny = 2\n"),
        ("f(|)  # why", "a)  # why", "f(a)  # why"),
    ],
)
def test_rest_of_the_line_appears_once(marked: str, middle: str, expected: str):
    check(marked, middle, expected)


@pytest.mark.parametrize(
    ("marked", "middle", "expected"),
    [
        ("x = |\n", "1\ny = 2", "x = 1\n"),
        ("x = |\n", "1  \n", "x = 1\n"),
        ("def f():\n    |\n", "a = 1\n    return a\n\ndef g():\n    pass", "def f():\n    a = 1\n    return a\n"),
        (
            "def f():\n    |\n",
            "if a:\n        b()\n\n        c()\n",
            "def f():\n    if a:\n        b()\n\n        c()\n",
        ),
        ("def f():|\n", "\n    return 1\nx = 2", "def f():\n    return 1\n"),
        ("f(|\n", "\n    a,\n)\nx = 2", "f(\n    a,\n)\n"),
        ("class A:\n\tdef f(self):\n\t\t|\n", "pass\n\tdef g(self):", "class A:\n\tdef f(self):\n\t\tpass\n"),
        ("a()\n\n|\n\nb()\n", "def f():\n    x\n\n    y\n\n\nz()", "a()\n\ndef f():\n    x\n\n    y\n\nb()\n"),
    ],
)
def test_cut_at_the_end_of_line_or_block(marked: str, middle: str, expected: str):
    check(marked, middle, expected)


@pytest.mark.parametrize(
    ("marked", "middle", "expected"),
    [
        ("    |\n    return x\n", "y = 1\n    return x", "    y = 1\n    return x\n"),
        ("    |\n    return x\n", "return x", None),
        ("    |\n\n    return x\n    z\n", "y\n    return x\n    z", "    y\n\n    return x\n    z\n"),
        ("    x|\n    }\n", " = 1", "    x = 1\n    }\n"),
        ("  |\n  }\n", "a {\n  }", "  a {\n  }\n  }\n"),
    ],
)
def test_lines_below_are_not_repeated(marked: str, middle: str, expected: str | None):
    check(marked, middle, expected)


@pytest.mark.parametrize(
    ("marked", "middle"),
    [
        ("x|", ""),
        ("x|", "   "),
        ("x|", "\n\n"),
        ("x|\n", "\ny"),
        ("foo(|)", ")"),
        ("|", " \n "),
        ("x = |y", "y"),
        ("{|}", "\n\t\n}"),
        ("f(|)", "  )"),
    ],
)
def test_middle_that_adds_nothing_is_not_shown(marked: str, middle: str):
    check(marked, middle, None)


@pytest.mark.parametrize(
    ("marked", "middle", "expected"),
    [
        ("a\r\nx = |\r\nb", "1\r\n", "a\r\nx = 1\r\nb"),
        ("a\r\n  |\r\nb", "x\r\n  y", "a\r\n  x\n  y\r\nb"),
        ("s = '😋' + |\n", "t", "s = '😋' + t\n"),
        ("e\u0301 = |\n", "1", "e\u0301 = 1\n"),
        ("|", "x", "x"),
        ("  x = |   \n", "1", "  x = 1   \n"),
    ],
)
def test_line_ends_and_wide_characters(marked: str, middle: str, expected: str):
    check(marked, middle, expected)


pieces = st.lists(st.sampled_from(["a", " ", "(", ")", "[", "]", ":", ",", '"', "😋", "\n", "    "]), max_size=12)


@given(pieces.map("".join), pieces.map("".join), pieces.map("".join))
def test_covered_text_is_on_the_cursors_line(prefix: str, suffix: str, middle: str):
    shape = shaped(prefix, suffix, middle)
    covered = suffix[: shape.covered]
    assert "\n" not in covered
    following = iter(shape.text)
    assert all(character in following for character in covered), "an editor cannot draw this as ghost text"


def test_covering_a_minified_line_stays_bounded():
    assert num_covered(before="(" * 200_000, middle="a)", rest=")" * 200_000) in {0, 1}


@pytest.mark.parametrize(
    ("line", "unbalanced"), [("f(a[0])", 0), ("f(a[0]", 1), (")(", 2), ('")"', 0), ('"(', 2), ("'\\''", 0)]
)
def test_num_unbalanced(line: str, unbalanced: int):
    assert num_unbalanced(line) == unbalanced


@pytest.mark.parametrize(
    ("text", "covered", "suffix", "same"),
    [("a", 0, ")", "a"), ("a)", 1, ")\n", "a"), ("a):", 1, "):", None), ("a)", 0, ")", "a)")],
)
def test_same_document_without_replacing_anything(text: str, covered: int, suffix: str, same: str | None):
    assert without_covered(text, covered, suffix) == same
