"""Filling with the real server and engine in a real VS Code: the file holds the model's text, or a message why not."""

from __future__ import annotations

from pathlib import Path

from tests.editors.vscode.documents import AREA
from tests.editors.vscode.window import Window

TIMEOUT_MS = 60_000


def test_a_selected_call_is_rewritten(window: Window, workspace: Path) -> None:
    path = workspace / "real_fill.py"
    text = f"{AREA}print(area(1, 2))\n"
    path.write_text(text)
    window.open(path)
    window.go_to(10, len("print(area(") + 1)
    window.press(*["Shift+ArrowRight"] * len("1, 2"))
    window.command("dgemma: Fill the Selection")
    outcome = window.page.locator(".quick-input-title:has-text('fill with'), .notification-toast:has-text('dgemma:')")
    filled = window.page.locator(".tab.active.dirty")
    outcome.or_(filled).first.wait_for(timeout=TIMEOUT_MS)
    window.page.locator(".notification-toast", has_text="dgemma: filling").wait_for(state="hidden", timeout=TIMEOUT_MS)
    if window.page.locator(".quick-input-title", has_text="fill with").is_visible():
        window.shot("real-fill")
        window.press("Enter")
    filled.wait_for()
    line = window.saved(path).splitlines()[9]
    assert line.startswith("print(area(")
    assert line != "print(area(1, 2))"
    window.press("Control+Z")
    assert window.saved(path) == text


def test_the_real_server_says_why_nothing_is_filled(window: Window, workspace: Path) -> None:
    path = workspace / "real_nothing.py"
    path.write_text(AREA)
    window.open(path)
    window.go_to(4, 1)
    window.command("dgemma: Fill the Selection")
    notice = window.notice("dgemma: ")
    assert len(notice.inner_text()) > 20
    window.dismiss_notices()
    assert window.saved(path) == AREA
