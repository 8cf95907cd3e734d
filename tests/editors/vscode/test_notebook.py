"""A notebook in a real VS Code with the real engine: its cells are completed and filled, its borders respected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.editors.vscode.documents import AREA, REST, TYPED
from tests.editors.vscode.window import Window

CELLS = [AREA, "print(area(1, 2))"]
FILL_MS = 60_000


@pytest.fixture
def notebook(window: Window, workspace: Path, request: pytest.FixtureRequest) -> Path:
    """A notebook of two cells, the second one selected."""
    path = workspace / f"{request.node.name.removeprefix('test_')}.ipynb"
    common = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [{**common, "source": source.splitlines(keepends=True)} for source in CELLS]
    metadata = {"language_info": {"name": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    window.reveal(path)
    window.page.locator(".statusbar-item", has_text="Cell 1 of 2").wait_for()
    window.press("ArrowDown")
    window.page.locator(".statusbar-item", has_text="Cell 2 of 2").wait_for()
    return path


def sources(window: Window, path: Path) -> list[str]:
    """Saves a notebook and returns the text of its cells on the disk."""
    window.save()
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def enter(window: Window) -> None:
    """Puts the cursor into the cell."""
    window.press("Enter")
    window.page.locator(".notebookOverlay .monaco-editor.focused").wait_for()


def test_a_cell_is_completed_from_the_one_before(window: Window, notebook: Path) -> None:
    enter(window)
    window.press("Control+End", "Enter")
    # At once: an answer to a part of it may offer what stands in this cell.
    window.page.keyboard.insert_text(TYPED)
    window.wait_ghost(REST)
    window.shot("notebook-ghost-text")
    window.press("Tab")
    assert sources(window, notebook) == [AREA, f"{CELLS[1]}\n{TYPED}{REST}"]
    window.press("Control+Z")
    assert sources(window, notebook) == [AREA, f"{CELLS[1]}\n{TYPED}"]
    window.press("Control+W")


def test_a_selection_within_a_cell_is_filled(window: Window, notebook: Path) -> None:
    enter(window)
    window.press("Home", *["ArrowRight"] * len("print(area("), *["Shift+ArrowRight"] * len("1, 2"))
    window.command("dgemma: Fill the Selection")
    window.page.locator(".quick-input-title", has_text="fill with").wait_for(timeout=FILL_MS)
    window.shot("notebook-fill")
    window.choose("width, height")
    window.page.locator(".tab.active.dirty").wait_for()
    assert sources(window, notebook) == [AREA, "print(area(width, height))"]
    window.press("Control+Z")
    assert sources(window, notebook) == CELLS
    window.press("Control+W")


def test_a_selection_across_the_border_is_not_filled(window: Window, notebook: Path) -> None:
    before = notebook.read_text()
    window.press("Shift+ArrowUp")
    window.page.locator(".statusbar-item", has_text="2 selected").wait_for()
    window.command("dgemma: Fill the Selection")
    window.notice("dgemma: the selection spans several notebook cells; select within one cell.")
    window.shot("notebook-border")
    window.dismiss_notices()
    assert window.page.locator(".tab.active.dirty").count() == 0
    assert notebook.read_text() == before
    window.press("Control+W")
