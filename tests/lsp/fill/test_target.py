"""Which range of the text a fill replaces."""

from __future__ import annotations

import pytest

from dgemma_lsp.fill.target import (
    MOST_CHARS,
    MOST_SELECTED_CHARS,
    FillKind,
    FillTarget,
    Refusal,
    fill_kinds,
    fill_target,
)


def split(marked: str) -> tuple[str, int, int]:
    first, last = marked.index("|"), marked.rindex("|")
    return marked.replace("|", ""), first, max(first, last - 1)


def target(marked: str, kind: FillKind = FillKind.SELECTION) -> FillTarget | Refusal:
    text, start, end = split(marked)
    return fill_target(text, start, end, kind=kind, language_id="python")


def replaced(marked: str, kind: FillKind = FillKind.SELECTION) -> str:
    """Returns the text with what is replaced between `«` and `»`, after what only the model sees in `‹›`."""
    found, (text, _, _) = target(marked, kind), split(marked)
    assert isinstance(found, FillTarget)
    shown = f"‹{found.shown}›" if found.shown else ""
    return f"{text[: found.start]}{shown}«{text[found.start : found.end]}»{text[found.end :]}"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("a = |b| + c\n", "a = «b» + c\n"),
        ("a =| b |+ c\n", "a = «b» + c\n"),
        ("def f():\n|    x\n    y\n|z\n", "def f():\n    «x\n    y»\nz\n"),
        ("def f():\n    |x\n    y|\nz\n", "def f():\n    «x\n    y»\nz\n"),
        ("def f():\n  |  x\n    y\n\n|z\n", "def f():\n    «x\n    y»\n\nz\n"),
        ("|a\n|", "«a»\n"),
        ("|a|", "«a»"),
        ("|\n\n  a\n\n|b", "\n\n  «a»\n\nb"),
        ("x\n|    \n|y\n", "x\n    «»\ny\n"),
        ("x\n|\n\n\n|y\n", "x\n«\n\n»\ny\n"),
        ("a| |b\n", "a« »b\n"),
        ("a|  \n|b\n", "a«  »\nb\n"),
    ],
)
def test_selection_is_trimmed_to_what_is_written(marked: str, expected: str, line_end: str) -> None:
    assert replaced(marked.replace("\n", line_end)) == expected.replace("\n", line_end)


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ('|def f():\n    """Sorts."""\n    pass\n|\n', 'def f():\n    """Sorts."""\n    «pass»\n\n'),
        ("|# sort them\nx = 1|\n", "# sort them\n«x = 1»\n"),
        ("if a:\n|    # sort them\n|    b\n", "if a:\n    # sort them‹\n    ›«»\n    b\n"),
        ('|def f():\n    """Sorts."""|', 'def f():\n    """Sorts."""‹\n    ›«»'),
    ],
)
def test_description_stays_and_what_follows_is_written(marked: str, expected: str) -> None:
    assert replaced(marked, FillKind.DESCRIPTION) == expected


def test_description_alone_begins_a_line_of_its_own() -> None:
    found = target("if a:\n|    # sort them|", FillKind.DESCRIPTION)
    assert isinstance(found, FillTarget)
    assert found.begins == "\n    "


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("    pa|ss\n", "    «pass»\n"),
        ("|    pass\n|", "    «pass»\n"),
        ("    # TODO: so|rt\n    pass\n", "    ‹# sort\n    ›«# TODO: sort\n    pass»\n"),
    ],
)
def test_placeholder(marked: str, expected: str) -> None:
    assert replaced(marked, FillKind.PLACEHOLDER) == expected


@pytest.mark.parametrize(
    ("marked", "kind", "message"),
    [
        ("a|b", FillKind.SELECTION, "nothing is selected"),
        ("a|b", FillKind.DESCRIPTION, "nothing is selected"),
        ("|ab|", FillKind.DESCRIPTION, "no comment or docstring"),
        ("a = |# sort|", FillKind.DESCRIPTION, "no comment or docstring"),
        ("a|b", FillKind.PLACEHOLDER, "not on a placeholder"),
        ("|    pass\n    x\n|", FillKind.PLACEHOLDER, "not on a placeholder"),
        (f"|{'x' * (MOST_SELECTED_CHARS + 1)}|", FillKind.SELECTION, "the selection is too long"),
        (f"|x|{' ' * MOST_CHARS}", FillKind.SELECTION, "this file is too long"),
    ],
)
def test_refused_in_one_sentence(marked: str, kind: FillKind, message: str) -> None:
    found = target(marked, kind)
    assert isinstance(found, Refusal)
    assert message in found.message
    assert "\n" not in found.message


@pytest.mark.parametrize(
    ("marked", "kinds"),
    [
        ("    pa|ss\n", [FillKind.PLACEHOLDER]),
        ("    x|\n", []),
        ("|x|\n", [FillKind.SELECTION]),
        ("|# sort\nx|\n", [FillKind.SELECTION, FillKind.DESCRIPTION]),
        (f"|{'x' * (MOST_SELECTED_CHARS + 1)}|", []),
        (f"pa|ss{' ' * MOST_CHARS}", []),
    ],
)
def test_kinds(marked: str, kinds: list[FillKind]) -> None:
    text, start, end = split(marked)
    assert list(fill_kinds(text, start, end, language_id="python")) == kinds
