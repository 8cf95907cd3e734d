"""Filling a selection in a real VS Code: one edit, one undo, every other outcome reported in one sentence.

The server is the stub; `test_real_fill.py` tests the answers of the real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError, expect

from tests.editors.vscode.window import Window

pytestmark = pytest.mark.usefixtures("stub")


def select(window: Window, workspace: Path, selected: str) -> Path:
    """Opens a file whose second line is to be filled, and selects that line."""
    path = workspace / f"fill_{selected or 'empty'}.py"
    path.write_text(f"before = 1\n{selected}\nafter = 2\n")
    window.open(path)
    window.go_to(2, 1)
    window.press("Shift+End")
    return path


def fill(window: Window) -> None:
    window.command("dgemma: Fill the Selection")


def test_one_candidate_is_applied_and_one_undo_takes_it_back(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "single")
    fill(window)
    window.wait_line("filled")
    assert window.saved(path) == "before = 1\nfilled\nafter = 2\n"
    window.press("Control+Z")
    assert window.saved(path) == "before = 1\nsingle\nafter = 2\n"


def test_of_several_candidates_the_user_chooses(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "several")
    fill(window)
    offered = ["first90 %", "second60 % second ⏎ of two lines", "third30 %"]
    assert window.entries("dgemma: fill with") == offered
    window.shot("fill-candidates")
    window.choose("second")
    window.wait_line("of two lines")
    assert window.saved(path) == "before = 1\nsecond\nof two lines\nafter = 2\n"
    window.press("Control+Z")
    assert window.saved(path) == "before = 1\nseveral\nafter = 2\n"


def test_escape_in_the_list_changes_nothing(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "several")
    fill(window)
    window.entries("dgemma: fill with")
    window.press("Escape")
    expect(window.page.locator(".quick-input-widget")).to_be_hidden()
    assert window.saved(path) == "before = 1\nseveral\nafter = 2\n"


def test_the_code_action_fills_too(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "action")
    action = window.page.locator(".action-widget .monaco-list-row", has_text="Fill selection")
    for _ in range(5):  # a late registration closes the menu
        window.press("Control+.")
        try:
            action.wait_for(timeout=2_000)
            break
        except TimeoutError:
            continue
    window.press("Enter")
    window.wait_line("filled")
    assert window.saved(path) == "before = 1\nfilled\nafter = 2\n"


def test_progress_is_shown_and_cancelled(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "endless")
    fill(window)
    toast = window.notice("dgemma: filling: step ")
    window.shot("fill-progress")
    toast.get_by_role("button", name="Cancel").click()
    expect(window.page.locator(".notification-toast")).to_have_count(0)
    assert window.saved(path) == "before = 1\nendless\nafter = 2\n"


def test_a_document_that_changed_meanwhile_is_not_overwritten(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "slow")
    fill(window)
    window.notice("dgemma: filling")
    window.press("Control+End")
    window.type("typed = 3\n")
    window.notice("the document changed while the fill was computed; nothing was changed")
    assert window.saved(path) == "before = 1\nslow\nafter = 2\ntyped = 3\n"
    window.dismiss_notices()


def test_the_server_says_why_there_is_nothing(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "")
    fill(window)
    window.notice("dgemma: nothing is selected; select the text to replace")
    window.dismiss_notices()
    assert window.saved(path) == "before = 1\n\nafter = 2\n"


def test_a_fault_of_the_server_is_reported(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "fails")
    fill(window)
    window.notice("the selection could not be filled")
    window.dismiss_notices()
    assert window.saved(path) == "before = 1\nfails\nafter = 2\n"


def test_a_read_only_file_is_left_alone(window: Window, workspace: Path) -> None:
    """VS Code would allow the edit and refuse to save the file."""
    path = select(window, workspace, "protected")
    path.chmod(0o444)
    fill(window)
    window.notice("dgemma: the file is read-only; nothing was changed.")
    window.dismiss_notices()
    assert window.page.locator(".tab.active.dirty").count() == 0
    assert path.read_text() == "before = 1\nprotected\nafter = 2\n"


def test_a_read_only_editor_is_left_alone(window: Window, workspace: Path) -> None:
    path = select(window, workspace, "locked")
    window.command("File: Set Active Editor Read-only in Session")
    window.page.get_by_label(f"{path} • Read-only").first.wait_for()
    fill(window)
    window.notice("read-only; nothing was changed")
    window.dismiss_notices()
    assert "filled" not in window.drawn()
    assert path.read_text() == "before = 1\nlocked\nafter = 2\n"
