"""Which placeholder a cursor stands on, language by language: the cases of `placeholders/*.txt`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dgemma_lsp.fill.placeholder import Placeholder, placeholder_at

FOLDER = Path(__file__).with_name("placeholders")
CASES = [
    pytest.param(path.stem, line, id=f"{path.stem}:{number}")
    for path in sorted(FOLDER.glob("*.txt"))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    if not line.startswith("# MARKED")
]


def found_in(marked: str, language: str) -> str:
    """Returns the text with `«` and `»` around what is found at `|`."""
    text, offset = marked.replace("|", ""), marked.index("|")
    found = placeholder_at(text, offset, language)
    if found is None:
        return text
    return f"{text[: found.start]}«{text[found.start : found.end]}»{text[found.end :]}"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize(("language", "case"), CASES)
def test_placeholder(language: str, case: str, line_end: str) -> None:
    case = case.replace("⏎", line_end).replace("→", "\t")
    bare = case.replace("«", "").replace("»", "")
    assert found_in(bare, language) == case.replace("|", "")


def test_cases_are_many() -> None:
    assert len(CASES) >= 60


def says(marked: str, language: str = "python") -> str:
    found = placeholder_at(marked.replace("|", ""), marked.index("|"), language)
    assert found is not None
    return found.says


def test_a_todo_says_what_is_wanted() -> None:
    assert says("    # TODO(bob): sort by name|\n    # and drop doubles\n    pass\n") == (
        "# sort by name\n    # and drop doubles\n    "
    )
    assert says("\t/* FIXME: sort| */\n", "javascript") == "/* sort */\n\t"
    assert says("# TODO|\n") == ""
    assert says("    pa|ss\n") == ""


def test_a_line_too_long_to_read_has_none() -> None:
    assert placeholder_at("pass" + " " * 2_000, 0, "python") is None
    assert placeholder_at("pass" + " " * 20, 0, "python") == Placeholder(start=0, end=4)


@pytest.mark.parametrize("text", ["(" * 900, "todo!(" * 150, "# TODO\n" * 50_000, "'" * 900, "throw new " * 90])
def test_odd_lines_cause_no_backtracking(text: str) -> None:
    started_s = time.process_time()
    for language in ("python", "rust", "javascript", "java"):
        placeholder_at(text, 5, language)
    assert time.process_time() - started_s < 5, "backtracking would take minutes"
