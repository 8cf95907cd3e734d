from __future__ import annotations

import pytest

from dgemma_lsp.completion.cache import CursorFingerprint
from dgemma_lsp.documents.notebooks import Cell, Notebooks
from dgemma_lsp.documents.store import Document, Documents
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Request

URI = "file:///w/a.ipynb"


def notebook(*cells: tuple[str, str, bool]) -> tuple[Notebooks, Documents]:
    """Cells are named by their index; each is language, text, and whether it is code."""
    documents = Documents()
    for index, (language, text, _) in enumerate(cells):
        documents.open(Document(uri=str(index), version=1, language=language, text=text))
    notebooks = Notebooks(documents.get)
    notebooks.open(URI, [Cell(uri=str(index), is_code=is_code) for index, (_, _, is_code) in enumerate(cells)])
    return notebooks, documents


def around(notebooks: Notebooks, uri: str, most: int = 1_000) -> tuple[str, str]:
    return notebooks.around(uri, most_before=most, most_after=most)


CELLS = (
    ("python", "import os\n", True),
    ("markdown", "# Prose", False),
    ("sql", "select 1", True),
    ("python", "a = 1", True),
    ("python", "here", True),
    ("python", "b = 2", True),
)


def test_code_cells_of_the_same_language_stand_around_a_cell():
    notebooks, _ = notebook(*CELLS)
    assert around(notebooks, "4") == ("import os\n\na = 1\n\n", "\n\nb = 2")
    assert around(notebooks, "0") == ("", "\n\na = 1\n\nhere\n\nb = 2")
    assert around(notebooks, "2") == ("", "")
    assert notebooks.holders["4"] == URI


def test_of_many_cells_the_nearest_are_read():
    notebooks, _ = notebook(*(("python", f"cell{index:02}", True) for index in range(20)))
    assert around(notebooks, "10", most=7) == ("cell08\n\ncell09\n\n", "\n\ncell11\n\ncell12")
    assert around(notebooks, "10", most=0) == ("", "")


def test_cells_are_moved_added_and_taken_out():
    notebooks, documents = notebook(*CELLS)
    documents.open(Document(uri="new", version=1, language="python", text="new"))
    assert notebooks.splice(URI, 4, 2, [Cell(uri="new", is_code=True), Cell(uri="4", is_code=True)])
    assert around(notebooks, "4") == ("import os\n\na = 1\n\nnew\n\n", "")
    assert around(notebooks, "5") == ("", ""), "taken out"
    assert "5" not in notebooks.holders
    assert sorted(notebooks.close(URI)) == ["0", "1", "2", "3", "4", "new"]
    assert around(notebooks, "4") == ("", "")


@pytest.mark.parametrize(("start", "num_deleted"), [(-5, 0), (99, 3), (0, -1), (5, 2**31), (2**31, 2**31)])
def test_odd_splices_are_clamped(start: int, num_deleted: int):
    notebooks, documents = notebook(*CELLS)
    documents.open(Document(uri="new", version=1, language="python", text="new"))
    assert notebooks.splice(URI, start, num_deleted, [Cell(uri="new", is_code=True)])
    before, after = around(notebooks, "3")
    assert "new" in before + after


def test_unknown_notebooks_and_cells_are_no_fault():
    notebooks, documents = notebook(*CELLS)
    assert not notebooks.splice("file:///w/other.ipynb", 0, 0, [])
    assert notebooks.close("file:///w/other.ipynb") == []
    assert around(notebooks, "file:///w/b.py") == ("", "")
    documents.close("3")
    assert around(notebooks, "4") == ("import os\n\n", "\n\nb = 2"), "a cell whose text never came"
    documents.close("4")
    assert around(notebooks, "4") == ("", "")


def question(above: str, text: str, offset: int, below: str) -> Request:
    return Request(uri="u", version=1, text=text, offset=offset, language="python", above=above, below=below)


def test_model_sees_other_cells_and_the_answer_stays_in_its_own():
    context = build_context(question("a = 1\n\n", "b = ", 4, "\n\nc = 3"), ContextLimits())
    assert (context.prefix, context.suffix) == ("a = 1\n\nb = ", "\n\nc = 3")


def test_limits_count_other_cells_too():
    context = build_context(
        question("a = 1\n" * 100, "b = ", 4, "\nc = 3" * 100), ContextLimits(prefix_chars=40, suffix_chars=40)
    )
    assert 4 < len(context.prefix) <= 40
    assert 0 < len(context.suffix) <= 40


def test_answer_serves_only_while_the_other_cells_are_unchanged():
    here = CursorFingerprint.of(question("a = 1\n\n", "b = ", 4, ""))
    later = question("a = 1\n\n", "b = a", 5, "")
    assert here.leads_to(CursorFingerprint.of(later), later.text)
    other = question("a = 2\n\n", "b = a", 5, "")
    assert not here.leads_to(CursorFingerprint.of(other), other.text)
