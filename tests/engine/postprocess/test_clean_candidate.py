"""Candidates cut to the text that may be inserted; the cursor is at `|`."""

from __future__ import annotations

import pytest
from dgemma_engine.postprocess.clean_candidate import clean_candidate
from dgemma_engine.protocol.messages import Context, Extent


def cleaned(document: str, text: str, *, one_line: bool = True) -> str:
    prefix, _, suffix = document.partition("|")
    extent = Extent.LINE if one_line else Extent.BLOCK
    return clean_candidate(text, Context(document="a", prefix=prefix, suffix=suffix, extent=extent))


@pytest.mark.parametrize(
    ("document", "text", "expected"),
    [
        ("x, |\n", "y\nz = 2", "y"),
        ("foo(|)\n", "a, b)", "a, b"),
        ("x, |\n", "  ", ""),
        ("x, |\n", "caf\ufffd", ""),
        ("x, |\n", "total = total = total = total = total", "total"),
        ("x = |\nreturn x\n", "1\nretu", "1"),
    ],
)
def test_clean_candidate_of_one_line(document: str, text: str, expected: str) -> None:
    assert cleaned(document, text) == expected


def test_clean_candidate_of_a_block_keeps_its_lines() -> None:
    assert cleaned("def f():\n|\n", "    a = 1\n    b = 2", one_line=False).count("\n") == 1
