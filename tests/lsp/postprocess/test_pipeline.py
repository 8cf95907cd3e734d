from __future__ import annotations

import pytest
from dgemma_engine.protocol.messages import Finish, Infill
from hypothesis import given
from hypothesis import strategies as st

from dgemma_lsp.postprocess.deduplicate import num_covered, num_unbalanced
from dgemma_lsp.postprocess.pipeline import Completion, build_completions
from tests.lsp.cursor import request_at


def completed(marked: str, middle: str) -> Completion | None:
    return next(iter(build_completions(request_at(marked), Infill(text=middle, finish=Finish.STABLE))), None)


def check(marked: str, middle: str, expected: str | None) -> None:
    """Checks what the text becomes when the completion of `middle` at `|` is accepted; None is nothing shown."""
    completion = completed(marked, middle)
    if expected is None:
        assert completion is None
        return
    assert completion is not None
    text = marked.replace("|", "")
    assert text[: completion.start] + completion.text + text[completion.end :] == expected


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
def test_rest_of_the_line_is_said_once(marked: str, middle: str, expected: str):
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
def test_lines_below_are_not_said_again(marked: str, middle: str, expected: str | None):
    check(marked, middle, expected)


@pytest.mark.parametrize(
    ("marked", "middle"),
    [("x|", ""), ("x|", "   "), ("x|", "\n\n"), ("x|\n", "\ny"), ("foo(|)", ")"), ("|", " \n "), ("x = |y", "y")],
)
def test_nothing_worth_showing(marked: str, middle: str):
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


def test_span_is_from_the_start_of_the_line_to_the_covered_rest():
    completion = completed("a\n  foo(|)\nb", "x)")
    assert completion == Completion(lead="  foo(", inserted="x)", start=2, cursor=8, end=9, version=1)
    assert completion.text == "  foo(x)"


def test_span_out_of_order_is_refused():
    with pytest.raises(ValueError, match=r"self\.cursor=5"):
        Completion(lead="", inserted="", start=0, cursor=5, end=4, version=1)


pieces = st.lists(st.sampled_from(["a", " ", "(", ")", "[", "]", ":", ",", '"', "😋", "\n", "    "]), max_size=12)


@given(pieces.map("".join), pieces.map("".join), pieces.map("".join))
def test_other_lines_stay_as_they_are(prefix: str, suffix: str, middle: str):
    text = prefix + suffix
    completion = completed(f"{prefix}|{suffix}", middle)
    if completion is not None:
        line_start = prefix.rfind("\n") + 1
        assert completion.start == line_start
        assert "\n" not in text[completion.start : completion.end]
        assert completion.text.startswith(prefix[line_start:])
        covered = text[completion.cursor : completion.end]
        following = iter(completion.inserted)
        assert all(character in following for character in covered), "an editor cannot draw this as ghost text"


def test_covering_a_minified_line_stays_bounded():
    assert num_covered(before="(" * 200_000, middle="a)", rest=")" * 200_000) in {0, 1}


@pytest.mark.parametrize(
    ("line", "unbalanced"), [("f(a[0])", 0), ("f(a[0]", 1), (")(", 2), ('")"', 0), ('"(', 2), ("'\\''", 0)]
)
def test_num_unbalanced(line: str, unbalanced: int):
    assert num_unbalanced(line) == unbalanced
