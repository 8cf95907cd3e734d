"""Pausing from the status bar in a real VS Code: no suggestion, a status that says so, suggestions after resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.conftest import bring_up
from tests.editors.vscode.documents import AREA, TYPED
from tests.editors.vscode.window import Window


@pytest.fixture(autouse=True)
def going_on(window: Window) -> Iterator[None]:
    """Resumes after each test, passed or failed."""
    yield
    if "Paused" in (window.status_item().get_attribute("aria-label") or ""):
        window.menu("Resume")


def check_silent(window: Window, path: Path) -> None:
    """Types what otherwise brings up a suggestion, asks explicitly, and checks that nothing is shown."""
    path.write_text(AREA)
    window.open(path)
    window.press("Control+End")
    window.type(TYPED, delay_ms=60)
    window.press("Alt+\\")
    window.page.wait_for_timeout(1_000)
    assert window.ghost() == ""
    window.press("Tab")
    assert window.saved(path) == f"{AREA}{TYPED} ", "Tab accepted a suggestion that was not shown"


def test_paused_workspace_gets_no_suggestions_until_resumed(window: Window, workspace: Path) -> None:
    window.status_item().click()
    assert "Pause in this workspace" in window.entries("dgemma")[:2]
    window.shot("menu")
    window.choose("Pause in this workspace")
    window.wait_status("Paused here")
    assert '"dgemma.enabled": false' in (workspace / ".vscode/settings.json").read_text()
    check_silent(window, workspace / "paused.py")
    window.shot("paused")
    window.menu("Resume in this workspace")
    bring_up(window, workspace)
    window.wait_status("Last suggestion")


def test_paused_language_gets_no_suggestions_and_another_does(
    window: Window, code_server: CodeServer, workspace: Path
) -> None:
    window.open(workspace / "warm.py")
    window.menu("Pause for python")
    window.wait_status("Paused for the language python")
    settings = code_server.home / "data/User/settings.json"
    assert json.loads(settings.read_text())["dgemma.pausedLanguages"] == ["python"]
    check_silent(window, workspace / "paused_language.py")
    window.shot("paused-language")

    other = workspace / "goes_on.js"
    other.write_text(AREA)
    window.open(other)
    window.wait_status("Ready|Last suggestion")
    window.press("Control+End")
    window.type(TYPED, delay_ms=60)
    window.wait_ghost()
    window.press("Escape")
    window.save()

    window.open(workspace / "paused_language.py")
    window.wait_status("Paused for the language python")
    window.menu("Resume for python")
    bring_up(window, workspace)
    assert json.loads(settings.read_text())["dgemma.pausedLanguages"] == []
