"""Learning a repository in VS Code: the hint that comes once, progress that can be cancelled, result and undo."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.editors.vscode.code_server import CodeServer
from tests.editors.vscode.window import Window

SERVER = Path(__file__).parents[2] / "lsp/repository_learning/learning_server.py"


@pytest.fixture
def run_learning(
    window: Window, code_server: CodeServer, home: Path, tmp_path: Path
) -> Iterator[Callable[[str], None]]:
    """Makes the window start a server that learns in a mode of `learning_server`."""

    def start(mode: str) -> None:
        program = home / f"learning-{mode}"
        places = f"XDG_DATA_HOME={tmp_path}/data XDG_STATE_HOME={tmp_path}/state"
        program.write_text(f'#!/bin/sh\nexec env {places} "{sys.executable}" "{SERVER}" {tmp_path}/record {mode}\n')
        program.chmod(0o755)
        code_server.machine_settings({"dgemma.server.path": str(program)})
        # Until then the status is that of the previous server.
        while "serves" not in events(tmp_path):
            window.page.wait_for_timeout(100)
        window.wait_status("the first request starts the engine", timeout_ms=30_000)

    yield start
    code_server.machine_settings({"dgemma.server.python": sys.executable})
    window.dismiss_notices()
    window.wait_status("the first request starts the engine", timeout_ms=30_000)


def events(folder: Path) -> list[str]:
    record = folder / "record"
    return record.read_text().splitlines() if record.exists() else []


def test_repository_is_learnt_and_forgotten(
    window: Window, run_learning: Callable[[str], None], tmp_path: Path
) -> None:
    run_learning("better")
    window.command("dgemma: Learn This Repository")
    notice = window.notice("installed: of 40 holes 9 were right before and 14 after")
    window.shot("learnt")
    notice.get_by_role("button", name="Undo").click()
    window.notice("is removed; the model answers as it was")
    assert [line.split()[0] for line in events(tmp_path) if line.startswith(("tune", "adapters"))] == [
        "tune",
        "adapters",
    ]
    window.dismiss_notices()
    window.command("dgemma: Forget This Repository")
    window.notice("has no adapter")


def test_learning_is_cancelled(window: Window, run_learning: Callable[[str], None], tmp_path: Path) -> None:
    run_learning("slow")
    window.command("dgemma: Learn This Repository")
    notice = window.notice("training")
    notice.get_by_role("button", name="Cancel").click()
    window.notice("what is learnt so far is kept")
    window.page.wait_for_timeout(1_000)
    assert "ended" in events(tmp_path)


def test_hint_comes_once(window: Window, run_learning: Callable[[str], None], workspace: Path, tmp_path: Path) -> None:
    many = workspace / "many"
    many.mkdir()
    try:
        for index in range(201):
            (many / f"{index}.py").touch()
        file = many / "hinted.py"
        file.write_text("x = \n")
        run_learning("worse")
        window.open(file)
        window.go_to(1, 5)
        window.type("y")
        notice = window.notice("has more than 200 files and is not learnt yet")
        window.shot("learn-hint")
        notice.get_by_role("button", name="Not Now").click()
        window.command("dgemma: Restart the Server")
        window.wait_status("the first request starts the engine", timeout_ms=30_000)
        window.press("Backspace")
        window.type("y")
        window.wait_ghost("1", timeout_ms=30_000)
        window.page.wait_for_timeout(1_000)
        expect(window.page.locator(".notification-toast", has_text="is not learnt yet")).to_have_count(0)
        assert not [line for line in events(tmp_path) if line.startswith("tune")]
    finally:
        shutil.rmtree(many)
