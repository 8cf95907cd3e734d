"""The preview of denoising, and the statistics, in a real VS Code; the stub server sends the drafts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.vscode.window import Window

pytestmark = pytest.mark.usefixtures("stub")

FINAL = "width, height):⏎    return"


def test_drafts_are_drawn_and_leave_nothing_in_the_file(window: Window, workspace: Path) -> None:
    path = workspace / "preview.py"
    path.write_text("def area(\n")
    window.open(path)
    window.go_to(1, 10)
    window.command("dgemma: Show Denoising at the Cursor")
    window.wait_drawn(f"def area({FINAL}")
    window.shot("denoising")
    assert len(window.decoration_colours()) == 2, "pieces of different confidence have different colours"
    window.page.locator(".statusbar-item", has_text="stable after 6 steps").wait_for()
    window.press("ArrowLeft")
    window.wait_not_drawn("height")
    assert window.saved(path) == "def area(\n"


def test_a_key_removes_the_preview(window: Window, workspace: Path) -> None:
    path = workspace / "preview_typed.py"
    path.write_text("def area(\n")
    window.open(path)
    window.go_to(1, 10)
    window.command("dgemma: Show Denoising at the Cursor")
    window.wait_drawn("def area(width")
    window.type("x")
    window.wait_not_drawn("height")
    assert window.saved(path) == "def area(x\n"


def test_statistics_are_a_page(window: Window) -> None:
    window.command("dgemma: Show Statistics")
    window.wait_line("accepted        2")
    window.wait_line("ms, total, p95  -")
    window.press("Control+W")
