"""Where a middle leaves the block in which it began; a token here is a character, a word or a run of blanks."""

from __future__ import annotations

import re

import pytest
from dgemma_engine.postprocess.block_end import BlockEnd, whole_part


def until_end(prefix: str, middle: str, least_column: int = -1) -> str:
    tokens = re.findall(r"\n+ *|\w+|[^\w]", middle)
    leaves = BlockEnd(prefix, lambda token_id: tokens[token_id], least_column=least_column)
    return "".join(tokens[: next((index for index in range(len(tokens)) if leaves(index)), len(tokens))])


@pytest.mark.parametrize(
    ("prefix", "middle", "expected"),
    [
        ("def f():\n    ", "a\n    b\n\n    c\nd", "a\n    b\n\n    c\n"),
        ("def f():\n    ", "if a:\n        b\n\n\ndef g():", "if a:\n        b\n\n\n"),
        ("def f():", "\n    a\nb", "\n    a\n"),
        ("def f(): ", "a\nb", "a\n"),
        ("f(", "\n    a,\n)\nb", "\n    a,\n)\n"),
        ("\tif (a) {\n\t\t", "b();\n\t\tc();\n\t}\n\td", "b();\n\t\tc();\n\t}\n\t"),
        ("", "def f():\n    a\n    b\n\n\ndef g():", "def f():\n    a\n    b\n\n\n"),
        ("", "a = 1\n\nb = 2\n", "a = 1\n\nb = 2\n"),
        ("    ", "a", "a"),
        ("    ", "", ""),
    ],
)
def test_end_of_block(prefix: str, middle: str, expected: str) -> None:
    assert until_end(prefix, middle) == expected


@pytest.mark.parametrize(
    ("prefix", "least_column", "middle", "expected"),
    [
        (
            "class A:\n    def f():\n        ",
            4,
            "a\n\n    def g():\n        b\n\nc",
            "a\n\n    def g():\n        b\n\n",
        ),
        ("def f():\n    ", 0, "if a:\n        b\n\nc = 1\n\nd = 2\n", "if a:\n        b\n\nc = 1\n\nd = 2\n"),
        ("def f():\n    ", 0, "a\n\n\ndef g():\n    b\n\n\ndef h():", "a\n\n\ndef g():\n    b\n\n\n"),
        ("x = ", 0, "a\n\ny = b", "a\n\ny = b"),
        ("", 0, "def f():\n    a\n\n\ndef g():", "def f():\n    a\n\n\n"),
        ("    ", 8, "a\n    b\nc", "a\n    b\n"),
    ],
)
def test_end_of_a_middle_that_may_leave_its_block(prefix: str, least_column: int, middle: str, expected: str) -> None:
    assert until_end(prefix, middle, least_column) == expected


def test_token_without_text_ends_nothing() -> None:
    assert not BlockEnd("    ", lambda _: None)(0)


@pytest.mark.parametrize(
    ("prefix", "middle", "expected"),
    [
        ("    ", "def f():\n        a\n\n    def g():\n        b", "def f():\n        a"),
        ("    ", "if a:\n        b\n\n        c", "if a:\n        b\n"),
        ("    ", "a\n    b", "a"),
        ("    ", "a", ""),
    ],
)
def test_whole_part(prefix: str, middle: str, expected: str) -> None:
    assert whole_part(middle, prefix) == expected.rstrip()
