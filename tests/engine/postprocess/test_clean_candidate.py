"""What a model wrote, cut to what may be inserted."""

from __future__ import annotations

import pytest
from dgemma_engine.postprocess.clean_candidate import offered
from dgemma_engine.tokenization.token_healing import back_off


@pytest.mark.parametrize(
    ("document", "written", "expected"),
    [
        ("x = |\n", " compute()", "compute()"),
        ("self.con|\n", "config.load()", "fig.load()"),
        ("self.con|\n", "value", ""),
        ("x, |\n", " y\nz = 2", "y"),
        ("foo(|)\n", "(a, b)", "a, b"),
        ("x, |\n", "   ", ""),
        ("x, |\n", "caf\ufffd", ""),
        ("x, |\n", " total = total = total = total = total", "total"),
        ("con|fig)\n", "con", ""),
    ],
)
def test_offered(document: str, written: str, expected: str) -> None:
    prefix, _, suffix = document.partition("|")
    boundary = back_off(prefix, suffix).with_whole_suffix()
    assert offered(written, boundary, prefix=prefix, suffix=suffix, one_line=True) == expected


def test_block_keeps_its_lines() -> None:
    boundary = back_off("def f():\n", "\n").with_whole_suffix()
    assert offered("    a = 1\n    b = 2", boundary, prefix="def f():\n", suffix="\n", one_line=False).count("\n") == 1
