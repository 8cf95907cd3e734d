"""What is shown of an answer, language by language: the cases of `shapes/*.txt` and properties of all of them."""

from __future__ import annotations

import pytest
from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.postprocess.pipeline import Completion, build_completions
from dgemma_lsp.request import Request, Trigger
from tests.lsp.cursor import split_cursor
from tests.lsp.postprocess.shape_cases import FOLDER, ShapeCase, shape_cases

CASES = shape_cases()


def completed(case: ShapeCase, *, line_end: str = "\n") -> tuple[str, Completion | None]:
    """Returns what the document becomes, with `\\n` again, and what was offered."""
    text, offset = split_cursor(case.document.replace("\n", line_end))
    request = Request(
        uri="file:///w/a", version=1, text=text, offset=offset, language=case.language, trigger=Trigger.AUTOMATIC
    )
    infill = Infill(text=case.answer.replace("\n", line_end), finish=Finish.STABLE)
    (completion,) = build_completions(request, infill) or (None,)
    if completion is not None:
        text = text[: completion.start] + completion.text + text[completion.end :]
    return text.replace(line_end, "\n"), completion


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shape(case: ShapeCase, line_end: str) -> None:
    text, completion = completed(case, line_end=line_end)
    assert (text if completion else None) == case.text


def test_cases_are_many_and_in_every_language() -> None:
    names = {path.stem for path in FOLDER.glob("*.txt")}
    assert names == {"python", "javascript", "typescript", "go", "rust", "c", "java", "html", "yaml", "markdown"} | {
        *("json", "lua", "ruby", "shellscript")
    }
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
