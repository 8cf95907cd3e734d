from __future__ import annotations

from random import Random

from dgemma_engine.tools.evaluation.holes.hole_chooser import HoleChooser
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCE = '''import os


class Reader:
    """Reads what is
    there (or not."""

    def read(self, path, mode="r"):
        # opens the file
        with open(path, mode) as file:
            text = file.read()
            print(
                f"{len(text)} characters",
                path,
            )
        return text.strip()
'''


def middles(kind: HoleKind, text: str = SOURCE, language: str = "python") -> set[str]:
    chooser, random = HoleChooser(text, language), Random(0)
    holes = (chooser.choose(kind, random) for _ in range(1_500))
    return {text[hole.start : hole.end] for hole in holes if hole is not None}


def test_line_is_a_line_of_code_after_its_indent() -> None:
    code = [line.strip() for line in SOURCE.splitlines()]
    prose = {"", '"""Reads what is', 'there (or not."""', "# opens the file", ")"}
    assert middles(HoleKind.LINE) == set(code) - prose


def test_rest_begins_with_a_token_within_a_line() -> None:
    found = middles(HoleKind.REST)
    assert {".read()", "read()", "file.read()", "= file.read()", "(path, mode) as file:"} <= found
    assert not found & {"text = file.read()", "ext = file.read()", "ile.read()", " file.read()"}
    assert all("\n" not in middle for middle in found)


def test_multiline_is_two_to_eight_lines_that_neither_begin_nor_end_blank() -> None:
    found = middles(HoleKind.MULTILINE)
    assert {middle.count("\n") + 1 for middle in found} == set(range(2, 9))
    assert all(middle.split("\n")[0].strip() and middle.split("\n")[-1].strip() for middle in found)
    assert not [middle for middle in found if middle.lstrip().startswith(("#", '"""', "there"))]


def test_syntax_is_a_node_of_python_only() -> None:
    assert {"text.strip()", "path, mode", "return text.strip()"} <= middles(HoleKind.SYNTAX)
    assert middles(HoleKind.SYNTAX, "f(a);\n", "java") == {"f(a)"}
    assert not middles(HoleKind.SYNTAX, "int f(int a) { return a; }\n", "java")


def test_balanced_is_the_text_between_brackets() -> None:
    assert middles(HoleKind.BALANCED) == {
        'self, path, mode="r"',
        "path, mode",
        '\n                f"{len(text)} characters",\n                path,\n            ',
    }
    assert middles(HoleKind.BALANCED, "call(first, [second, 3]);\n", "java") == {"first, [second, 3]", "second, 3"}


def test_span_may_begin_and_end_anywhere_in_code() -> None:
    found = middles(HoleKind.SPAN)
    assert len(found) > 300
    assert any("\n" in middle for middle in found)
    assert any(middle[0].isalpha() and f"x{middle}" not in SOURCE and middle[:3] == "ead" for middle in found)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="ab =(:)\n\r\t#'\"[]é\x0c", min_size=1),
    kind=st.sampled_from(HoleKind),
    seed=st.integers(0, 100),
)
def test_hole_is_a_span_that_is_not_blank(text: str, kind: HoleKind, seed: int) -> None:
    hole = HoleChooser(text, "python").choose(kind, Random(seed))
    if hole is not None:
        assert 0 <= hole.start < hole.end <= len(text)
        assert len(text[hole.start : hole.end].strip()) >= 3
