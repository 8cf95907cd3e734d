"""The comment or docstring of a selection that describes what to write."""

from __future__ import annotations

import pytest

from dgemma_lsp.fill.instruction import description_span


def described(marked: str, language: str) -> str | None:
    span = description_span(marked.replace("|", ""), language)
    return None if span is None else marked.replace("|", "")[slice(*span)]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize(
    ("language", "selected", "expected"),
    [
        ("python", "# sort the names\nx = 1\n", "# sort the names"),
        ("python", "# sort the names", "# sort the names"),
        ("python", "# sort\n    # the names  \n    y", "# sort\n    # the names"),
        ("python", 'def f():\n    """Sorts."""\n    pass\n', '    """Sorts."""'),
        ("python", 'def f(\n    a,\n):\n    r"""Sorts\n\n    them.\n    """\n', '    r"""Sorts\n\n    them.\n    """'),
        ("python", "def f():\n    'Sorts.'\n", "    'Sorts.'"),
        ("python", "\n\n# sort\n", "# sort"),
        ("python", "x = 1\n# sort\n", None),
        ("python", "x = 1  # sort\n", None),
        ("python", "if x:\n    # sort them\n    y\n", "    # sort them"),
        ("python", "# noqa: E501\nx", None),
        ("python", "# -*- coding: utf-8 -*-\nx", None),
        ("python", "#!/usr/bin/env python\nx", None),
        ("python", "# ----\nx", None),
        ("python", '"""open', None),
        ("python", '"""a""" + b', None),
        ("python", "x", None),
        ("python", "", None),
        ("javascript", "// sort them\nx", "// sort them"),
        ("javascript", "/**\n * Sorts.\n */\nfunction f() {\n}", "/**\n * Sorts.\n */"),
        ("javascript", "/* sort */ x", None),
        ("javascript", "/* never ends", None),
        ("javascript", "/*! a license */\nx", None),
        ("javascript", "// eslint-disable-next-line\nx", None),
        ("rust", "fn f() {\n    // sort them\n    todo!()\n}", "    // sort them"),
        ("html", "<!-- a table -->\n<p>", "<!-- a table -->"),
        ("markdown", "# A heading\ntext", None),
    ],
)
def test_description(language: str, selected: str, expected: str | None, line_end: str) -> None:
    selected = selected.replace("\n", line_end)
    assert described(selected, language) == (None if expected is None else expected.replace("\n", line_end))


def test_only_the_beginning_is_read() -> None:
    assert description_span("f(\n" * 100 + "# sort\n", "python") is None
    assert description_span("f(\n" * 50 + "# sort\n", "python") is not None
