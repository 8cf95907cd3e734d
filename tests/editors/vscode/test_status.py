"""The server's state in the status bar and notifications of a real VS Code, and the actions that they offer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.conftest import bring_up
from tests.editors.vscode.window import Window

Run = Callable[[str, str], None]


@pytest.fixture
def run_with(window: Window, code_server: CodeServer, home: Path) -> Iterator[Run]:
    """Makes the window start its server with a shell script, by a setting; restores the setting afterwards."""

    def start(setting: str, script: str) -> None:
        program = home / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        code_server.machine_settings({f"dgemma.server.{setting}": str(program)})

    yield start
    code_server.machine_settings({"dgemma.server.python": sys.executable})
    window.dismiss_notices()
    window.wait_status("the first request starts the engine", timeout_ms=30_000)


def test_the_item_shows_how_long_the_last_suggestion_took(window: Window, workspace: Path) -> None:
    bring_up(window, workspace)
    window.wait_status(r"dgemma \d+ ms.*Last suggestion \d+ ms, median \d+ ms")


def test_a_missing_server_is_reported_with_remedies(window: Window, code_server: CodeServer, run_with: Run) -> None:
    code_server.machine_settings({"dgemma.server.python": "/nowhere/bin/python"})
    notice = window.notice("The setting dgemma.server.python names /nowhere/bin/python: there is no such program.")
    window.wait_status(r"^error .*there is no such program")
    window.shot("missing-server")
    assert [button.strip() for button in notice.get_by_role("button").all_inner_texts() if button.strip()] == [
        "Install Help",
        "Choose Python",
        "Open Log",
    ]
    notice.get_by_role("button", name="Install Help").click()
    window.page.get_by_text("Start with dgemma").first.wait_for()
    window.page.get_by_text("The extension talks to the Python package").first.wait_for()
    window.shot("walkthrough")
    window.press("Control+W")


def test_the_python_can_be_chosen(window: Window, run_with: Run) -> None:
    window.command("dgemma: Select the Python with the Server")
    entries = window.entries("dgemma: the Python that has dgemma-lsp")
    assert any("has the server" in entry for entry in entries)
    assert "Browse" in entries[-1]
    window.press("Escape")


def test_a_python_that_is_too_old_is_named(window: Window, run_with: Run) -> None:
    run_with("python", "echo 3.9 False")
    window.notice("is Python 3.9, and the server needs 3.11 or newer")


def test_a_server_that_ends_at_start_is_reported_once_with_its_last_output(window: Window, run_with: Run) -> None:
    run_with("path", "echo 'ModuleNotFoundError: No module named lsprotocol' >&2; exit 1")
    window.notice("The server ended at start: ModuleNotFoundError: No module named lsprotocol")
    window.wait_status("^error ")
    window.shot("crash-at-start")
    expect(window.page.locator(".notification-toast")).to_have_count(1)


def test_a_server_that_keeps_ending_is_not_started_again(window: Window, run_with: Run) -> None:
    run_with("path", f'exec "{sys.executable}" "{Path(__file__).parent / "stub_server.py"}" --dies')
    window.notice("The server ended 4 times within three minutes.")
    window.wait_status("^error .*ended 4 times")


STATES = {
    "loading": "^loading~spin  dgemma 40 %",
    "slow": "^watch  dgemma",
    "inactive": "^circle-slash  dgemma",
    "error": "^error  dgemma",
    "ready": "^sparkle  dgemma",
}


def test_each_state_of_the_server_is_shown(window: Window, run_with: Run, workspace: Path) -> None:
    run_with("path", f'exec "{sys.executable}" "{Path(__file__).parent / "stub_server.py"}"')
    window.wait_status("the stub")
    path = workspace / "states.py"
    path.write_text("".join(f"say {kind}\n" for kind in STATES))
    window.open(path)
    for line, (kind, pattern) in enumerate(STATES.items(), start=1):
        window.go_to(line, 1)
        window.press("Shift+End")
        window.command("dgemma: Fill the Selection")
        window.wait_status(f"{pattern}.*the stub was told to say {kind}")
        window.shot(f"state-{kind}")
    window.command("File: Revert File")


def test_an_old_server_completes_and_a_fill_asks_for_an_upgrade(window: Window, run_with: Run, workspace: Path) -> None:
    run_with("path", f'exec "{sys.executable}" "{Path(__file__).parent / "stub_server.py"}" --old')
    window.wait_status("^warning .*dgemma-lsp 0.0.9 is older than this extension")
    path = workspace / "old_server.py"
    path.write_text("x")
    window.open(path)
    window.press("Control+End")
    window.type(" = ")
    window.wait_ghost("from_the_stub")
    window.press("Escape", "Control+A")
    window.command("dgemma: Fill the Selection")
    window.notice('for the rest run "pip install --upgrade dgemma-lsp"')
    assert window.saved(path) == "x = "


def test_the_doctor_writes_into_the_log(window: Window) -> None:
    window.command("dgemma: Check the Installation")
    window.page.locator(".panel .view-line", has_text="statistics").first.wait_for()
    window.shot("doctor")
    window.command("View: Hide Panel")
