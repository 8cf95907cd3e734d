"""The shown part of an answer, language by language: the cases of `shapes/*.txt` and properties of all of them."""

from __future__ import annotations

import pytest
from dgemma_engine.postprocess.cursor_context import CursorContext, extent_of
from dgemma_engine.postprocess.shape import shape_completion

from tests.engine.postprocess.shape_cases import FOLDER, ShapeCase, shape_cases

CASES = shape_cases()


def completed(case: ShapeCase, *, line_end: str) -> str | None:
    """Returns the resulting document, with `\n` again; None where nothing is shown."""
    before, after = case.document.replace("\n", line_end).split("|")
    around = CursorContext.of(before, after, case.language)
    extent = extent_of(around.before, around.rest, case.language)
    shape = shape_completion(case.answer.replace("\n", line_end), around, extent)
    text = before + shape.text + after[shape.covered :]
    return text.replace(line_end, "\n") if shape.text else None


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shape(case: ShapeCase, line_end: str) -> None:
    assert completed(case, line_end=line_end) == case.text


def test_every_language_has_many_cases() -> None:
    names = {path.stem for path in FOLDER.glob("*.txt")}
    assert names == {"python", "javascript", "typescript", "go", "rust", "c", "java", "html", "yaml", "markdown"} | {
        *("json", "lua", "ruby", "shellscript")
    }
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
